"""Tables on a mesh: what the methods of this room share."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

# Full float32: accelerators otherwise round the operands of a product to bfloat16 or tf32.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


PLACED_ROWS = 4096
"""Rows that are placed on the devices at a time where not the whole table is needed there."""


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


def unit_rows(table: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
    """Every row divided by its Euclidean norm; a row of zeros stays one."""
    norm = jnp.linalg.norm(table, axis=1, keepdims=True)
    return table / jnp.where(norm == 0, 1, norm)


def zero_rows(table: Float[np.ndarray, "rows dim"]) -> Bool[np.ndarray, "rows"]:
    """Which rows are zero throughout."""
    return np.logical_not(table.any(axis=1))
