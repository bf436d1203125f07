"""Spread a batch that every process holds in full over the mesh."""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from clp_jax.mesh import batch_divisor, local_rows, shard_batch


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The smallest batch size from ``batch_size`` up that the mesh divides."""
    divisor = batch_divisor(mesh)
    return -(-batch_size // divisor) * divisor


def global_batch(batch: Shaped[np.ndarray, "batch ..."], mesh: Mesh) -> Shaped[Array, "batch ..."]:
    """Spread a batch over the mesh; each process contributes its own rows."""
    return shard_batch(batch[local_rows(mesh, len(batch))], mesh)
