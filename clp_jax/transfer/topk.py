"""Top-k softmax: a combination of the few nearest shared tokens, always convex.

    E[m] = sum_{o in N} p_o E[o]      with  p = softmax(cos(H[m], H[o]) / temperature)

N holds the k shared tokens with the largest cosine. It needs the similarities that CLP's closed
form avoids, so they are computed for a block of rows at a time and dropped.
"""

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from clp_jax.mesh import replicated
from clp_jax.transfer.rows import matmul, row_sharding, shard_rows, unit_rows

NEIGHBOURS = 10
TEMPERATURE = 0.1
BLOCK_ROWS = 256


@partial(jax.jit, static_argnames="mesh")
def nearest_mean(
    missing_helper: Float[Array, "missing helper_dim"],
    overlap_helper: Float[Array, "shared helper_dim"],
    overlap_source: Float[Array, "shared source_dim"],
    *,
    mesh: Mesh,
) -> Float[Array, "missing source_dim"]:
    """The formula above, float32: missing rows over all devices, the shared ones on each."""

    def of_device(missing: Array, unit: Array, source: Array) -> Array:
        def of_row(row: Array) -> Array:
            best, ids = jax.lax.top_k(matmul(unit, row), min(NEIGHBOURS, len(unit)))
            return matmul(jax.nn.softmax(best / TEMPERATURE), source[ids])

        return jax.lax.map(of_row, missing, batch_size=BLOCK_ROWS)

    rows, whole = row_sharding(mesh).spec, PartitionSpec()
    sharded = jax.shard_map(of_device, mesh=mesh, in_specs=(rows, whole, whole), out_specs=rows)
    return sharded(unit_rows(missing_helper), unit_rows(overlap_helper), overlap_source)


def combine(
    missing_helper: Float[np.ndarray, "missing helper_dim"],
    overlap_helper: Float[np.ndarray, "shared helper_dim"],
    overlap_source: Float[np.ndarray, "shared source_dim"],
    mesh: Mesh,
) -> Float[np.ndarray, "missing source_dim"]:
    """:func:`nearest_mean` of float32 host tables, computed over all devices of ``mesh``."""
    overlap = (
        jax.device_put(table, replicated(mesh)) for table in (overlap_helper, overlap_source)
    )
    rows = nearest_mean(shard_rows(missing_helper, mesh), *overlap, mesh=mesh)
    return np.asarray(rows)[: len(missing_helper)]
