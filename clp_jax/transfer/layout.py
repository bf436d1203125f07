"""Where each row of a new table comes from, before any of them is computed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from clp_jax.vocabulary import VocabularyReport


@dataclass(frozen=True)
class Layout:
    """The places of a new table's rows.

    Three kinds of ids meet here: of the source's vocabulary, of the helper's, and of the new
    model's. The last are the helper's too, unless the source's vocabulary is kept and extended.

    Attributes:
        rows: rows of the new table.
        copied_source: source ids of the rows that are copied, the anchors' first; those of
            tokens that match nearly or by role are copied whole, whatever the anchors' share.
        copied: new ids of the same rows.
        anchors: how many of them are anchors: tokens that stand for the same text in source and
            helper, and so tell how the two models' rows relate.
        anchor_helper: helper ids of the anchors.
        roles: new ids of the special tokens that were matched by role.
        missing: new ids of the tokens that the source lacks.
        missing_helper: helper ids of the same tokens.
        padding: new ids without a token.
        keeps: whether the source's vocabulary is kept, so that its rows must stay as they are.
    """

    rows: int
    copied_source: Int[np.ndarray, " copied"]
    copied: Int[np.ndarray, " copied"]
    anchors: int
    anchor_helper: Int[np.ndarray, " anchor"]
    roles: Int[np.ndarray, " role"]
    missing: Int[np.ndarray, " missing"]
    missing_helper: Int[np.ndarray, " missing"]
    padding: Int[np.ndarray, " padding"]
    keeps: bool


def replacing(vocabulary: VocabularyReport, *, multiple: int = 1) -> Layout:
    """The layout of a table for the target's vocabulary alone.

    Args:
        vocabulary: how source and target match.
        multiple: the number of rows is rounded up to a multiple of it.
    """
    order = np.argsort(~vocabulary.anchors, kind="stable")
    anchors = int(vocabulary.anchors.sum())
    copied = vocabulary.target_ids[order]
    rows = -(-vocabulary.target_rows // multiple) * multiple
    return Layout(
        rows=rows,
        copied_source=vocabulary.source_ids[order],
        copied=copied,
        anchors=anchors,
        anchor_helper=copied[:anchors],
        roles=vocabulary.target_ids[vocabulary.kinds == "role"],
        missing=vocabulary.missing_ids,
        missing_helper=vocabulary.missing_ids,
        padding=np.concatenate([vocabulary.gap_ids, np.arange(vocabulary.target_rows, rows)]),
        keeps=False,
    )


def extending(
    vocabulary: VocabularyReport,
    new_ids: Int[np.ndarray, " new"],
    target_ids: Int[np.ndarray, " new"],
    *,
    multiple: int = 1,
) -> Layout:
    """The layout of a table that keeps the source's vocabulary and adds tokens of the target's.

    Args:
        vocabulary: how source and target match.
        new_ids: ids of the added tokens.
        target_ids: ids of the same tokens in the target's vocabulary.
        multiple: the number of rows is rounded up to a multiple of it.
    """
    known = vocabulary.anchors
    # Two target tokens may match one source token; its row is copied once.
    anchor_source, first = np.unique(vocabulary.source_ids[known], return_index=True)
    kept = np.setdiff1d(np.arange(vocabulary.source_rows), new_ids)
    copied = np.concatenate([anchor_source, np.setdiff1d(kept, anchor_source)])
    used = max(vocabulary.source_rows, int(new_ids.max(initial=-1)) + 1)
    rows = -(-used // multiple) * multiple
    return Layout(
        rows=rows,
        copied_source=copied,
        copied=copied,
        anchors=len(anchor_source),
        anchor_helper=vocabulary.target_ids[known][first],
        roles=copied[:0],
        missing=new_ids,
        missing_helper=target_ids,
        padding=np.setdiff1d(np.arange(rows), np.concatenate([copied, new_ids])),
        keeps=True,
    )
