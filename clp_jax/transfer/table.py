"""Embedding tables: the layout of a new table, reading stored rows, and the finished new table."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.transfer.blockwise import empty_rows
from clp_jax.transfer.interface import Contributors
from clp_jax.vocabulary import VocabularyReport


@dataclass(frozen=True)
class Layout:
    """Which row of a new table comes from where.

    There are three kinds of ids: those of the source's vocabulary, of the helper's, and of the new
    model's. New ids equal the helper's, unless the source's vocabulary is kept and extended.

    Attributes:
        rows: number of rows of the new table.
        copied_source: source ids of the rows to copy, those of the anchors first. Rows of tokens
            that match by role or fuzzily are copied unchanged, whatever the anchors' weight.
        copied: new ids of the same rows.
        anchors: how many of them are anchors: tokens with the same text in source and helper,
            which show how the two models' rows relate.
        anchor_helper: helper ids of the anchors.
        roles: new ids of the special tokens that were matched by role.
        missing: new ids of the tokens that the source lacks.
        missing_helper: helper ids of the same tokens.
        padding: new ids without a token.
        keeps: whether the source's vocabulary is kept, so that its rows must not change.
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
    """The layout of a table for the target's vocabulary.

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
        padding=np.concatenate(
            [vocabulary.unassigned_ids, np.arange(vocabulary.target_rows, rows)]
        ),
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


READ_ROWS = 1024
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class TableRead(NamedTuple):
    """Some rows of a stored table in float32, and statistics of all its rows.

    Attributes:
        rows: the requested rows.
        norms: the norm of every row.
        mean: the mean row.
        std: the standard deviation of each dimension.
        sha256: SHA-256 of the stored bytes, row by row.
    """

    rows: Float[np.ndarray, "chosen dim"]
    norms: Float[np.ndarray, " rows"]
    mean: Float[np.ndarray, " dim"]
    std: Float[np.ndarray, " dim"]
    sha256: str


def read_table(tensor: LazyTensor, ids: Int[np.ndarray, " chosen"]) -> TableRead:
    """Read the rows ``ids`` in one pass, with only a block of the others in memory."""
    count, dim = tensor.shape
    rows = empty_rows(len(ids), dim)
    norms = np.empty(count, np.float32)
    total, squares = np.zeros(dim), np.zeros(dim)
    digest = hashlib.sha256()
    order = np.argsort(ids, kind="stable")
    ends = np.searchsorted(ids[order], np.arange(0, count + READ_ROWS, READ_ROWS))
    with ThreadPoolExecutor(1) as hasher:  # hashing takes as long as everything else
        hashed = hasher.submit(digest.update, b"")
        for block_index, start in enumerate(range(0, count, READ_ROWS)):
            block = np.ascontiguousarray(tensor.read_rows(start, start + READ_ROWS))
            hashed.result()
            hashed = hasher.submit(digest.update, block.view(np.uint8).data)
            values = block.astype(np.float32, copy=False)
            norms[start : start + len(values)] = row_norms(values)
            total += values.sum(axis=0)
            squares += np.einsum("rd,rd->d", values, values)
            inside = order[ends[block_index] : ends[block_index + 1]]
            rows[inside] = values[ids[inside] - start]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return TableRead(
        rows, norms, mean.astype(np.float32), std.astype(np.float32), digest.hexdigest()
    )


def row_norms(rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, " rows"]:
    """Euclidean norm of every row, computed without a temporary table."""
    return np.sqrt(np.einsum("rd,rd->r", rows, rows))


@dataclass(frozen=True)
class NewTable:
    """The rows of the new vocabulary and where each comes from.

    Attributes:
        rows: the table, float32.
        origins: new ids by origin: ``copied`` unchanged from the source, ``mixed`` from the
            source's row and the method's, ``role`` for special tokens, also copied, ``combined`` by
            the method, ``fallback: NAME`` for those it could not serve, and ``padding`` for ids
            without a token, which get the mean row.
        facts: what the method measured and chose; ``source_weight`` has the weights of the source
            in the mixed rows, in the order of their ids, if they differ.
        contributors: for a given k, the source ids and weights that contribute most to each missing
            token's row, in the order of the layout's ``missing``; None if no source row does.
    """

    rows: Float[np.ndarray, "new dim"]
    origins: Mapping[str, Int[np.ndarray, " rows_of_it"]]
    facts: Mapping[str, Any]
    contributors: Contributors | None

    def ids_by_origin(self) -> dict[str, Int[np.ndarray, " _"]]:
        """`origins` with all fallbacks under one name, the ids ascending."""
        found: dict[str, list[np.ndarray]] = {}
        for origin, ids in self.origins.items():
            found.setdefault(origin.split(":")[0], []).append(ids)
        return {origin: np.sort(np.concatenate(parts)) for origin, parts in found.items()}

    def to_dict(self, source_norms: Float[np.ndarray, " source"]) -> dict[str, Any]:
        """Counts, facts and norms, ready for JSON, with the norms of the source's rows."""
        norms = row_norms(self.rows)
        return {
            "rows": {"total": len(self.rows)}
            | {name: len(ids) for name, ids in self.origins.items()},
            "facts": {
                name: quantiles(fact) if isinstance(fact, np.ndarray) else fact
                for name, fact in self.facts.items()
            },
            "norm_quantiles": {"source": quantiles(source_norms)}
            | {name: quantiles(norms[ids]) for name, ids in self.origins.items()},
        }


def quantiles(values: Float[np.ndarray, " values"]) -> dict[str, float]:
    """``{"0.5": median, ...}``; empty if there are no values."""
    if not len(values):
        return {}
    return dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))
