"""A new embedding table: every row accounted for."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.transfer import clp, topk
from clp_jax.vocabulary import VocabularyReport

MINIMUM_CONDITION = 0.5
"""Rows whose condition is lower are not combined by CLP's formula.

From here on no row is more than twice as long as the source's rows are in the root mean square.
Measured by the loss of small transferred models on German text before any training (docs/lab.md):
without a limit 130 and 192 nats a token, with 0.1 7.9 and 10.4, with 0.5 7.3 and 10.0, with top-k
softmax for every row 6.9 and 9.7. Large published models lie near 1, where the formula is safe.
"""

READ_ROWS = 1024
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class TableRead(NamedTuple):
    """Some rows of a stored table in float32, the norms of all of them and the table's hash."""

    rows: Float[np.ndarray, "chosen dim"]
    norms: Float[np.ndarray, "rows"]
    sha256: str


def read_table(tensor: LazyTensor, ids: Int[np.ndarray, "chosen"]) -> TableRead:
    """Read the rows ``ids`` in one pass, without ever holding the others together.

    The hash is of the stored bytes, row after row.
    """
    count, dim = tensor.shape
    rows = np.empty((len(ids), dim), np.float32)
    norms = np.empty(count, np.float32)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(1) as hasher:  # hashing takes as long as all the rest
        hashed = hasher.submit(digest.update, b"")
        for start in range(0, count, READ_ROWS):
            block = np.ascontiguousarray(tensor.read_rows(start, start + READ_ROWS))
            hashed.result()
            hashed = hasher.submit(digest.update, block.view(np.uint8).data)
            values = block.astype(np.float32, copy=False)
            norms[start : start + len(values)] = row_norms(values)
            inside = (ids >= start) & (ids < start + len(values))
            rows[inside] = values[ids[inside] - start]
    return TableRead(rows, norms, digest.hexdigest())


def row_norms(rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows"]:
    """Euclidean norm of every row, without a temporary table."""
    return np.sqrt(np.einsum("rd,rd->r", rows, rows))


@dataclass(frozen=True)
class NewTable:
    """The rows of the target vocabulary and where each comes from.

    Attributes:
        rows: the table, float32.
        origins: ids by origin: ``copied`` from the source, ``combined`` by CLP's formula,
            ``fallback`` by top-k softmax, ``padding`` for ids without a token: the mean row.
        condition: condition of the formula for every missing token, by ascending id.
        source_norms: norms of the source's rows, the unused ones too.
        source_sha256: hash of the source's table.
        helper_sha256: hash of the helper's.
    """

    rows: Float[np.ndarray, "target dim"]
    origins: dict[str, Int[np.ndarray, "rows_of_it"]]
    condition: Float[np.ndarray, "missing"]
    source_norms: Float[np.ndarray, "source"]
    source_sha256: str
    helper_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Counts, condition and norms, ready for JSON."""
        norms = row_norms(self.rows)
        by_origin = {name: norms[ids] for name, ids in self.origins.items()}
        return {
            "rows": {"total": len(self.rows)}
            | {name: len(ids) for name, ids in self.origins.items()},
            "condition": {
                "minimum": MINIMUM_CONDITION,
                "below_minimum": int((~(self.condition >= MINIMUM_CONDITION)).sum()),
                "negative": int((self.condition < 0).sum()),
                "quantiles": quantiles(self.condition),
            },
            "norm_quantiles": {"source": quantiles(self.source_norms)}
            | {name: quantiles(values) for name, values in by_origin.items()},
        }


def quantiles(values: Float[np.ndarray, "values"]) -> dict[str, float]:
    """``{"0.5": median, ...}``; empty for no values."""
    if not len(values):
        return {}
    return dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))


def new_table(
    source: LazyTensor,
    helper: LazyTensor,
    vocabulary: VocabularyReport,
    *,
    strict: bool,
    mesh: Mesh,
) -> NewTable:
    """Compute the table of the target vocabulary.

    Shared tokens keep their source row. Missing ones are combined by :mod:`clp`, or by
    :mod:`topk` where the formula is ill-conditioned and ``strict`` is false. Ids without a token
    get the mean of all other rows.

    Args:
        source: the source's table, a row an id of the source vocabulary.
        helper: the helper's table of the same role, a row an id of the target vocabulary.
        vocabulary: the overlap of the two.
        strict: keep CLP's formula whatever its condition; values may then be huge, or not finite.
        mesh: devices to compute on.
    """
    shared, missing, gaps = vocabulary.target_ids, vocabulary.missing_ids, vocabulary.gap_ids
    source_read = read_table(source, vocabulary.source_ids)
    helper_read = read_table(helper, np.concatenate([missing, shared]))
    missing_helper, overlap_helper = np.split(helper_read.rows, [len(missing)])
    overlap = overlap_helper, source_read.rows
    combined, condition = clp.combine(missing_helper, *overlap, mesh)

    rows = np.zeros((vocabulary.target_rows, source.shape[1]), np.float32)
    rows[shared] = source_read.rows
    rows[missing] = combined
    ill = np.zeros(len(missing), bool) if strict else ~(condition >= MINIMUM_CONDITION)
    if ill.any():
        rows[missing[ill]] = topk.combine(missing_helper[ill], *overlap, mesh)
    if len(gaps):
        rows[gaps] = rows.sum(axis=0, dtype=np.float64) / (len(shared) + len(missing))

    origins = {
        "copied": shared,
        "combined": missing[~ill],
        "fallback": missing[ill],
        "padding": gaps,
    }
    return NewTable(
        rows, origins, condition, source_read.norms, source_read.sha256, helper_read.sha256
    )
