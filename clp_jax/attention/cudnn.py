"""Attention on GPUs by cuDNN, with ALiBi as extra columns of queries and keys.

cuDNN takes a bias or a document mask only as an array of all scores, and has no soft cap.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from clp_jax.attention.alibi import COLUMNS, with_alibi

STEP, WIDEST = 8, 128
"""Head sizes are multiples of `STEP` up to `WIDEST`; only some GPUs support wider heads."""

Implementation = Literal["cudnn", "xla"]


def serves(
    query: Float[Array, "batch queries heads dim"],
    *,
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    segments: Int[Array, "batch keys"] | None = None,
    start: int | Int[Array, ""] = 0,
) -> bool:
    """Whether cuDNN supports these arguments without an array of all scores."""
    width = query.shape[-1] + (0 if slopes is None else COLUMNS)
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and segments is None
        and softcap is None
        and isinstance(start, int)
        and start == 0
        and width <= WIDEST
        and (slopes is not None or width % STEP == 0)
    )


def attend_cudnn(
    query: Float[Array, "batch length heads dim"],
    key: Float[Array, "batch length kv_heads dim"],
    value: Float[Array, "batch length kv_heads dim"],
    *,
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    window: int | None = None,
    implementation: Implementation = "cudnn",
) -> Float[Array, "batch length heads dim"]:
    """Causal attention of whole rows to themselves, for arguments that `serves` accepts.

    Args:
        query: queries, already multiplied by the scale.
        key: keys.
        value: values.
        slopes: ALiBi slope of each head, or None.
        window: number of keys that a query sees, or None.
        implementation: `xla` uses the formula and needs no GPU.
    """
    dim = value.shape[-1]
    if slopes is not None:
        query, key = with_alibi(query, key, slopes)
        width = -(-query.shape[-1] // STEP) * STEP
        query, key, value = (
            jnp.pad(x, [(0, 0)] * 3 + [(0, width - x.shape[-1])]) for x in (query, key, value)
        )
    options = (implementation, None if window is None else (window - 1, 0))
    return _attend(options, query, key, value)[..., :dim]


_Options = tuple[Implementation, tuple[int, int] | None]
"""The implementation, and how many keys before and after its own a query sees."""


def _library(options: _Options, query: Array, key: Array, value: Array) -> Array:
    # All arrays are [batch, length, heads, width].
    implementation, window = options
    return jax.nn.dot_product_attention(
        *(query, key, value),
        scale=1.0,
        is_causal=True,
        local_window_size=window,
        implementation=implementation,
    )


_attend = jax.custom_vjp(_library, nondiff_argnums=(0,))


def _forward(options: _Options, query: Array, key: Array, value: Array) -> tuple[Array, Any]:
    """Forward pass; like the other kernels, it names what it saves in addition to its arguments."""
    arguments = (query, key, value)
    attended, transpose = jax.vjp(partial(_library, options), *arguments)

    def named(x: Array) -> Array:
        return x if any(x is y for y in arguments) else checkpoint_name(x, "attended")

    return named(attended), jax.tree.map(named, transpose)


def _backward(_: _Options, transpose: Any, gradient: Array) -> tuple[Array, Array, Array]:
    return transpose(gradient)


_attend.defvjp(_forward, _backward)
