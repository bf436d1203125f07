"""How long the rows of the token embedding are, by where a transfer took them from."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.checkpoint.hub import ORIGINS
from clp_jax.errors import UserError
from clp_jax.files import regular_file
from clp_jax.mesh import to_host

_HEADERS = 1 << 20
"""Bytes that the arrays' headers may have beside eight for each row."""


def read_origins(model_folder: Path, rows: int) -> dict[str, Int[np.ndarray, " ids"]]:
    """The ids of the rows by origin; those of a model that no transfer made are all of one.

    Args:
        model_folder: The model's folder, in which a transfer leaves ``transfer_origins.npz``.
        rows: Rows of the embedding.

    Raises:
        UserError: the file does not hold that.
    """
    file = model_folder / ORIGINS
    if not file.exists():
        return {"all": np.arange(rows)}
    try:
        with zipfile.ZipFile(regular_file(file)) as members:
            size = sum(member.file_size for member in members.infolist())
        origins = dict(np.load(file)) if size <= 8 * rows + _HEADERS else {}
        ids = np.concatenate([part for part in origins.values() if len(part)])
        fits = ids.dtype.kind in "iu" and ids.min() >= 0
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error):
        fits = False
    if not fits:
        raise UserError(f"{file} does not say where {rows} rows are from: remove it.")
    kept = {origin: ids[ids < rows] for origin, ids in origins.items()}  # An export drops padding.
    return {origin: ids for origin, ids in kept.items() if len(ids)}


def mean_norms(
    embedding: Float[Array, "vocab embed"], origins: Mapping[str, Int[np.ndarray, " _"]]
) -> dict[str, float]:
    """Mean Euclidean norm of the rows of each origin, as ``norm_ORIGIN``.

    Copied rows that shrink while new ones grow, or the reverse, have not settled yet. Every process
    must call it.
    """
    norms = to_host(_row_norms(embedding))
    return {f"norm_{origin}": float(norms[ids].mean()) for origin, ids in origins.items()}


@jax.jit
def _row_norms(embedding: Float[Array, "vocab embed"]) -> Float[Array, " vocab"]:
    return jnp.linalg.norm(embedding.astype(jnp.float32), axis=1)
