"""What every implementation does with a score: the soft cap, and which keys a query sees.

The soft cap is that of logits too.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def capped(scores: Float[Array, "*shape"], softcap: float | None) -> Float[Array, "*shape"]:
    """Scores between -``softcap`` and ``softcap``, almost unchanged where they are small."""
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def through_cap(
    gradient: Float[Array, "*shape"], scores: Float[Array, "*shape"], softcap: float | None
) -> Float[Array, "*shape"]:
    """The gradient before `capped` from the one after it; 0 for masked scores.

    Args:
        gradient: gradient of the capped scores.
        scores: the capped scores, or less than -``softcap`` where masked.
        softcap: the cap.
    """
    if softcap is None:
        return gradient
    return gradient * (1 - jnp.square(jnp.maximum(scores / softcap, -1.0)))


def seen_by(
    q_pos: Int[Array, "..."], k_pos: Int[Array, "..."], window: int | None
) -> Bool[Array, "..."]:
    """Whether queries at these positions see keys at those: arrays that broadcast to the scores.

    A query sees itself and what comes before it; with a window, the ``window`` nearest of them.
    """
    mask = k_pos <= q_pos
    return mask if window is None else mask & (k_pos > q_pos - window)
