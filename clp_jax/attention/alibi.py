"""ALiBi: the slopes of the heads, and extra columns with which any attention kernel computes it."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from clp_jax.errors import UserError

LOW = 256
"""Positions are ``LOW`` * high + low; bfloat16 represents all integers up to ``LOW``."""
POSITIONS = LOW * LOW
"""Number of positions whose columns are exact."""
PARTS = 3
"""Number of bfloat16 summands that represent a slope to float32 precision."""
COLUMNS = 2 * PARTS


def alibi_slopes(heads: int) -> Float[np.ndarray, " heads"]:
    """The slope of each head (Press et al. 2022, arXiv 2108.12409, section 3).

    For a power of two, 2^(-8/n), 2^(-16/n), ...; otherwise the slopes of the next lower power of
    two, followed by every other slope of the next higher one.
    """
    lower = 2 ** int(np.log2(heads))
    slopes = 2.0 ** (-8.0 / lower * np.arange(1, lower + 1))
    between = 2.0 ** (-4.0 / lower * np.arange(1, 2 * (heads - lower), 2))
    return np.concatenate([slopes, between]).astype(np.float32)


def with_alibi(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys kv_heads dim"],
    slopes: Float[Array | np.ndarray, " heads"],
) -> tuple[Float[Array, "batch queries heads wide"], Float[Array, "batch keys kv_heads wide"]]:
    """Queries and keys with `COLUMNS` more columns, whose products add slope * key position.

    Softmax does not change when a constant is added to a row, so this equals ALiBi. All columns are
    exact in bfloat16, and so are their products in float32, in which the kernels accumulate: at the
    last of `POSITIONS`, the sum is rounded by at most 2^-8 for slopes below 1.

    Args:
        query: queries, already multiplied by the scale of the scores.
        key: keys at the positions 0, 1, ...
        slopes: ALiBi slope of each head.

    Raises:
        UserError: there are more keys than `POSITIONS`.
    """
    if key.shape[1] > POSITIONS:
        raise UserError(
            f"Sequences of {key.shape[1]:,} tokens are too long for ALiBi on this device, "
            f"whose attention is exact up to {POSITIONS:,}: choose a shorter "
            "data.sequence_length."
        )
    parts, rest = [], jnp.asarray(slopes, jnp.float32)
    for _ in range(PARTS):
        parts.append(rest.astype(jnp.bfloat16).astype(jnp.float32))
        rest = rest - parts[-1]
    slope = jnp.stack(parts, axis=-1)  # [heads, parts]
    high, low = jnp.divmod(jnp.arange(key.shape[1]), LOW)
    of_queries = jnp.concatenate([LOW * slope, slope], axis=-1)  # [heads, columns]
    of_keys = jnp.repeat(jnp.stack([high, low], axis=-1), PARTS, axis=-1)  # [keys, columns]
    return (
        _append(query, of_queries[None, None]),
        _append(key, of_keys[None, :, None]),
    )


def _append(
    x: Float[Array, "batch length heads dim"], columns: Shaped[Array, "..."]
) -> Float[Array, "batch length heads wide"]:
    columns = jnp.broadcast_to(columns.astype(x.dtype), (*x.shape[:-1], COLUMNS))
    return jnp.concatenate([x, columns], axis=-1)
