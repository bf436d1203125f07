"""Attention by its formula, with all scores in memory: for short rows, caches and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from clp_jax.attention.precision import precision_of
from clp_jax.attention.scores import capped, seen_by


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
    key: Float[Array, "batch keys kv_heads dim"],
    value: Float[Array, "batch keys kv_heads dim"],
    *,
    scale: float | Float[Array, ""],
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    start: int | Int[Array, ""] = 0,
    segments: Int[Array, "batch keys"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: PRNGKeyArray | None = None,
) -> Float[Array, "batch queries heads dim"]:
    """Causal attention; scores and softmax in float32, the result in the dtype of ``value``.

    ALiBi adds slope * (key position - query position) to each score. Softmax does not change
    when a constant is added to a row, so slope * (key position - last query position) is equivalent
    and needs no bias of the size of the scores.

    The arguments are those of `attend`.
    """
    precision = precision_of(value.dtype)
    batch, queries, heads, dim = query.shape
    keys, kv_heads = key.shape[1:3]
    # With the axes of the products in order, no array of scores is transposed.
    grouped = jnp.moveaxis(query.reshape(batch, queries, kv_heads, -1, dim), 1, 3)
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    scores = jnp.einsum(
        "bgrqd,bgkd->bgrqk",
        grouped,
        key,
        precision=precision,
        preferred_element_type=jnp.float32,
    ).reshape(batch, heads, queries, keys)
    scores = capped(scores * scale, softcap)
    q_pos = (start + jnp.arange(queries))[None, None, :, None]
    k_pos = jnp.arange(keys)[None, None, None, :]
    if slopes is not None:
        # Relative to the last query, since rounding errors grow with the positions.
        distances = k_pos - (start + queries - 1)
        scores = scores + slopes[None, :, None, None] * distances.astype(jnp.float32)
    mask = seen_by(q_pos, k_pos, window)
    if segments is not None:
        q_segments = jax.lax.dynamic_slice_in_dim(segments, start, queries, axis=1)
        mask = mask & (q_segments[:, None, :, None] == segments[:, None, None, :])
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = dropout(jax.nn.softmax(scores, axis=-1), dropout_rate, dropout_key)
    weights = weights.astype(value.dtype).reshape(batch, kv_heads, -1, queries, keys)
    attended = jnp.einsum("bgrqk,bgkd->bgrqd", weights, value, precision=precision)
    return jnp.moveaxis(attended, 3, 1).reshape(query.shape)
