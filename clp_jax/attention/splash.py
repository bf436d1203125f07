"""Attention on TPUs by JAX's splash kernels, with ALiBi as extra columns of queries and keys."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import (
    SplashAttentionKernel,
)
from jaxtyping import Array, Float, Int

from clp_jax.attention.alibi import with_alibi
from clp_jax.attention.precision import precision_of

LANES = 128
"""The kernels need lengths that are multiples of this."""
BLOCKS = (512, 256, 128)


def make_kernel(
    length: int,
    heads: int,
    *,
    window: int | None = None,
    softcap: float | None = None,
    shards: int = 1,
    interpret: bool = False,
) -> SplashAttentionKernel:
    """The causal forward and backward kernels for rows of ``length`` positions.

    Args:
        length: positions of a row, a multiple of ``shards`` * `LANES`.
        heads: heads of the queries on each device.
        window: number of keys that a query sees, or None.
        softcap: soft cap of the scores, or None.
        shards: devices over which the queries of a row are spread.
        interpret: run without a TPU.
    """
    queries = next(block for block in BLOCKS if length // shards % block == 0)
    keys = next(block for block in BLOCKS if length % block == 0)
    sizes = splash_attention.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        use_fused_bwd_kernel=True,
    )
    mask: splash_attention.Mask
    if window is None:
        mask = splash_attention.CausalMask((length, length), shard_count=shards)
    else:
        mask = splash_attention.LocalMask(
            (length, length), window_size=(window - 1, 0), offset=0, shard_count=shards
        )
    return splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=shards,
        block_sizes=sizes,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name="attended",
        interpret=interpret,
    )


def attend_splash(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys kv_heads dim"],
    value: Float[Array, "batch keys kv_heads dim"],
    *,
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    segments: Int[Array, "batch keys"] | None = None,
    start: int | Int[Array, ""] = 0,
    kernel: SplashAttentionKernel,
) -> Float[Array, "batch queries heads dim"]:
    """Causal attention by ``kernel``; the other arguments are those of `attend_blockwise`.

    With ALiBi the heads are six columns wider inside the kernel. Up to a head size of 122 they fit
    the same 128 lanes. A head size of 128 needs a second tile of 128 lanes: the three of the seven
    products that contract over the columns then take twice the time.
    """
    if slopes is not None:
        query, key = with_alibi(query, key, slopes)
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # [batch, heads, ...]
    documents = None
    if segments is not None:
        q_segments = jax.lax.dynamic_slice_in_dim(segments, start, query.shape[2], axis=1)
        documents = splash_attention.SegmentIds(q_segments, segments)
    return _in_precision(kernel, query, key, value, documents).swapaxes(1, 2)


@jax.custom_vjp
def _in_precision(kernel: SplashAttentionKernel, *arrays: Any) -> Array:
    """Run the kernels at the precision of their inputs.

    Their products use the ambient precision, which for the backward kernels would be that of the
    caller of the gradient.
    """
    return _forward(kernel, *arrays)[0]


def _forward(kernel: SplashAttentionKernel, *arrays: Any) -> tuple[Array, Any]:
    query, key, value, documents = arrays
    attend: Callable[..., Any] = jax.vmap(kernel)
    with _precision(query):
        return jax.vjp(lambda *qkv: attend(*qkv, documents), query, key, value)


def _backward(transposed: Any, gradient: Array) -> tuple[Any, ...]:
    with _precision(gradient):
        return (None, *transposed(gradient), None)


_in_precision.defvjp(_forward, _backward)


def _precision(x: Array) -> AbstractContextManager[None]:
    return jax.default_matmul_precision(precision_of(x.dtype).name.lower())
