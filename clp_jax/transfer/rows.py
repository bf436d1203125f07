"""Tables on a mesh: what the methods of this room share."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from clp_jax.transfer.problem import Blocks, Problem

# Full float32: accelerators otherwise round the operands of a product to bfloat16 or tf32.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


PLACED_ROWS = 4096
"""Rows that are placed on the devices at a time where not the whole table is needed there."""

ALIGNMENT = 64
"""Bytes: an array that begins at a multiple is shared with a CPU device, others are copied."""


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices, whatever the mesh calls its axes."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def shard_rows(table: Float[np.ndarray, "rows dim"], mesh: Mesh) -> Float[Array, "padded dim"]:
    """Place ``table`` over all devices of ``mesh``, with zero rows added until they divide it."""
    padding = -len(table) % mesh.size
    if padding:
        table = np.pad(table, ((0, padding), (0, 0)))
    return jax.device_put(table, row_sharding(mesh))


def row_slices(count: int) -> Iterator[slice]:
    """Slices of ``PLACED_ROWS`` rows that make up a table of ``count``."""
    return (slice(start, start + PLACED_ROWS) for start in range(0, count, PLACED_ROWS))


def empty_rows(count: int, dim: int) -> Float[np.ndarray, "count dim"]:
    """Room for a float32 table that a CPU device can read where it lies."""
    memory = np.empty(count * dim * 4 + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + count * dim * 4].view(np.float32).reshape(count, dim)


def in_blocks(
    compute: Callable[[Float[Array, "part feature"]], Float[Array, "part dim"]],
    problem: Problem,
    unknown: Bool[np.ndarray, " query"] | None = None,
    positions: Int[np.ndarray, " chosen"] | None = None,
) -> Blocks:
    """The rows that ``compute`` makes of the queries, `PLACED_ROWS` of them at a time.

    Args:
        compute: from queries on the devices, with rows of zeros behind the last, to their rows.
        problem: the queries.
        unknown: queries that get the mean row.
        positions: of the queries that are asked for; by default all.
    """
    asked = np.arange(len(problem.queries)) if positions is None else positions

    def blocks():
        for part in row_slices(len(asked)):
            chosen = asked[part]
            rows = np.asarray(compute(shard_rows(problem.queries[chosen], problem.mesh)))
            rows = rows[: len(chosen)]
            if unknown is not None and unknown[chosen].any():
                rows = np.where(unknown[chosen, None], problem.mean, rows)
            yield chosen, rows

    return blocks


def unit_rows(table: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
    """Every row divided by its Euclidean norm; a row of zeros stays one."""
    norm = jnp.linalg.norm(table, axis=1, keepdims=True)
    return table / jnp.where(norm == 0, 1, norm)


def zero_rows(table: Float[np.ndarray, "rows dim"]) -> Bool[np.ndarray, " rows"]:
    """Which rows are zero throughout."""
    return np.logical_not(table.any(axis=1))
