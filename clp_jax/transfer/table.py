"""Reading a table row by row, and a new one with every row accounted for."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.transfer.problem import Contributors
from clp_jax.transfer.rows import empty_rows

READ_ROWS = 1024
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class TableRead(NamedTuple):
    """Some rows of a stored table in float32, and what there is to know of all of them.

    Attributes:
        rows: the rows asked for.
        norms: the norm of every row.
        mean: the mean row.
        std: the standard deviation of each dimension.
        sha256: hash of the stored bytes, row after row.
    """

    rows: Float[np.ndarray, "chosen dim"]
    norms: Float[np.ndarray, " rows"]
    mean: Float[np.ndarray, " dim"]
    std: Float[np.ndarray, " dim"]
    sha256: str


def read_table(tensor: LazyTensor, ids: Int[np.ndarray, " chosen"]) -> TableRead:
    """Read the rows ``ids`` in one pass, without ever holding the others together."""
    count, dim = tensor.shape
    rows = empty_rows(len(ids), dim)
    norms = np.empty(count, np.float32)
    total, squares = np.zeros(dim), np.zeros(dim)
    digest = hashlib.sha256()
    order = np.argsort(ids, kind="stable")
    ends = np.searchsorted(ids[order], np.arange(0, count + READ_ROWS, READ_ROWS))
    with ThreadPoolExecutor(1) as hasher:  # hashing takes as long as all the rest
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
    """Euclidean norm of every row, without a temporary table."""
    return np.sqrt(np.einsum("rd,rd->r", rows, rows))


@dataclass(frozen=True)
class NewTable:
    """The rows of the new vocabulary and where each comes from.

    Attributes:
        rows: the table, float32.
        origins: new ids by origin: ``copied`` whole from the source, ``mixed`` where less than the
            whole row was to be copied and the rest is the method's own, ``role`` for special
            tokens, copied too, ``combined`` by the method, ``fallback: NAME`` for what it could not
            serve, and ``padding`` for ids without a token, which have the mean row.
        facts: what the method found out and chose.
        contributors: for k, the source ids and the weights that made up each missing token's row
            most, in the order of the layout's ``missing``; None where no source row did.
    """

    rows: Float[np.ndarray, "new dim"]
    origins: Mapping[str, Int[np.ndarray, " rows_of_it"]]
    facts: Mapping[str, Any]
    contributors: Contributors | None

    def ids_by_origin(self) -> dict[str, Int[np.ndarray, " _"]]:
        """`origins` with one name for all fallbacks, the ids in order."""
        found: dict[str, list[np.ndarray]] = {}
        for origin, ids in self.origins.items():
            found.setdefault(origin.split(":")[0], []).append(ids)
        return {origin: np.sort(np.concatenate(parts)) for origin, parts in found.items()}

    def to_dict(self, source_norms: Float[np.ndarray, " source"]) -> dict[str, Any]:
        """Counts, facts and norms, ready for JSON, beside the norms of the source's rows."""
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
    """``{"0.5": median, ...}``; empty for no values."""
    if not len(values):
        return {}
    return dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))
