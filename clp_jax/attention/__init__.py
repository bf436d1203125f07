"""Causal attention by the implementation that suits the call.

Queries may share keys and values (grouped queries), see a window of them, and have ALiBi or capped
scores.

Models call only `attend`. It chooses between the plain formula (`dense`), XLA operations block by
block (`blockwise`), JAX's splash kernels for TPUs (`splash`), cuDNN's kernels (`cudnn`), and Pallas
kernels for GPUs (`triton`).
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from clp_jax.attention.alibi import alibi_slopes as alibi_slopes
from clp_jax.attention.dense import attend_dense
from clp_jax.attention.dense import dropout as dropout
from clp_jax.attention.dispatch import attend_fused
from clp_jax.attention.precision import precision_of as precision_of
from clp_jax.attention.scores import capped as capped
from clp_jax.attention.scores import through_cap as through_cap


def at_the_beginning(start: int | Int[Array, ""]) -> bool:
    """Whether queries are known, when they are compiled, to follow nothing."""
    return isinstance(start, int) and start == 0


def attend(
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

    For whole rows that attend to themselves, as in training, no array of
    [batch, heads, length, length] exists: a fused kernel computes them (`attend_fused`). Queries
    that continue a cache, and dropout of the weights, which the kernels do not support, use the
    formula, with all scores in memory (`attend_dense`).

    Args:
        query: queries at the positions ``start``, ``start`` + 1, ...
        key: keys at the positions 0, 1, ...; ``kv_heads`` divides ``heads``, and each head of keys
            serves as many successive heads of queries.
        value: values at the same positions.
        scale: factor of the scores.
        slopes: ALiBi slope of each head, or None; not together with ``softcap``.
        window: number of keys that a query sees, itself included; None: all before it.
        softcap: scaled scores become ``softcap`` * tanh(score / ``softcap``); None: they stay.
        start: position of the first query.
        segments: the document of each position; queries see only keys of their own document. None:
            all positions are of one document.
        dropout_rate: fraction of the attention weights that is dropped.
        dropout_key: random key of the dropout; None turns it off.
    """
    assert slopes is None or softcap is None
    kind: dict[str, Any] = {
        "scale": scale,
        "slopes": slopes,
        "window": window,
        "softcap": softcap,
        "segments": segments,
    }
    dropped = dropout_key is not None and dropout_rate > 0
    whole = at_the_beginning(start) and query.shape[1] == key.shape[1]
    if whole and not dropped:
        return attend_fused(query, key, value, **kind)
    return attend_dense(
        query,
        key,
        value,
        **kind,
        start=start,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
    )
