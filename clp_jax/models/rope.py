"""Rotary position embeddings (Su et al. 2021, arXiv 2104.09864)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each position, for the first half of a head's width."""

    cos: Float[Array, "#batch length half"]
    sin: Float[Array, "#batch length half"]


def rotate(
    x: Float[Array, "batch length heads dim"], rotation: Rotation
) -> Float[Array, "batch length heads dim"]:
    """Rotate each pair of elements i and i + dim / 2, in float32; the result has the dtype of x."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = (angles[:, :, None] for angles in rotation)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
