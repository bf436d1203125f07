"""Attention by its formula, with all scores in memory: for short rows, caches and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from clp_jax.attention.precision import precision_of


def dropout(
    x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray | None
) -> Float[Array, "*shape"]:
    """Zero a fraction ``rate`` of the elements and scale the rest; without a key, return ``x``."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def attend_dense(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    *,
    scale: float | Float[Array, ""],
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    start: int | Int[Array, ""] = 0,
    segments: Int[Array, "batch keys"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: PRNGKeyArray | None = None,
) -> Float[Array, "batch queries heads dim"]:
    """Causal attention; scores and softmax in float32, the result in the dtype of ``value``.

    ALiBi adds slope * (key position - query position) to each score. Softmax does not change
    when a constant is added to a row, so slope * (key position - last query position) is equivalent
    and needs no bias of the size of the scores.

    Args:
        query: queries at the positions ``start``, ``start`` + 1, ...
        key: keys at the positions 0, 1, ...
        value: values at the same positions.
        scale: factor of the scores before ALiBi is added.
        slopes: ALiBi slope of each head, or None.
        start: position of the first query.
        segments: the document of each position; queries see only keys of their own document. None:
            all positions are of one document.
        dropout_rate: fraction of the attention weights that is dropped.
        dropout_key: random key of the dropout; None turns it off.
    """
    precision = precision_of(value.dtype)
    scores = jnp.einsum(
        "bqhd,bkhd->bhqk", query, key, precision=precision, preferred_element_type=jnp.float32
    )
    scores = scores * scale
    key_positions = jnp.arange(key.shape[1])
    if slopes is not None:
        # Relative to the last query, since rounding errors grow with the positions.
        distances = key_positions - (start + query.shape[1] - 1)
        scores = scores + slopes[:, None, None] * distances.astype(jnp.float32)
    seen = key_positions <= start + jnp.arange(query.shape[1])[:, None]
    if segments is not None:
        own = jax.lax.dynamic_slice_in_dim(segments, start, query.shape[1], axis=1)
        seen = seen & (own[:, None, :, None] == segments[:, None, None, :])
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_key)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value, precision=precision)
