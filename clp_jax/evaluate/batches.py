"""From a batch that every process holds whole to the mesh."""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from clp_jax.mesh import batch_divisor, local_rows, shard_batch


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The next batch size that the mesh divides."""
    divisor = batch_divisor(mesh)
    return -(-batch_size // divisor) * divisor


def share(batch: Shaped[np.ndarray, "batch ..."], mesh: Mesh) -> Shaped[Array, "batch ..."]:
    """Spread a batch over the mesh; each process passes on its own part of the rows."""
    return shard_batch(batch[local_rows(mesh, len(batch))], mesh)
