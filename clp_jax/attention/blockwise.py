"""Attention in plain XLA operations, without an array of all scores: for CPUs and any device.

Only the scores of one head and one block of queries exist at a time, and blocks above the diagonal
are skipped. The backward pass recomputes the scores from the logarithm of each row's sum
(Dao et al. 2022, arXiv 2205.14135, algorithm 4).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from clp_jax.attention.precision import precision_of

BLOCK = 128
"""Queries whose scores exist at the same time."""


def attend_blockwise(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys heads dim"],
    value: Float[Array, "batch keys heads dim"],
    *,
    slopes: Float[Array | np.ndarray, " heads"] | None,
    segments: Int[Array, "batch keys"] | None,
    start: int | Int[Array, ""],
) -> Float[Array, "batch queries heads dim"]:
    """Causal attention whose largest array has `BLOCK` * keys elements.

    Lengths are arbitrary. If ``start`` is a Python int, keys that come after a block are skipped.

    Args:
        query: queries at the positions ``start``, ``start`` + 1, ..., multiplied by the scale.
        key: keys at the positions 0, 1, ...
        value: values at the same positions.
        slopes: ALiBi slope of each head, or None.
        segments: the document of each position, or None if all are of one document.
        start: position of the first query.
    """
    batch, _, heads, _ = query.shape
    per_head = (
        None if slopes is None else jnp.tile(jnp.asarray(slopes), batch),
        None if segments is None else jnp.repeat(segments, heads, axis=0),
    )
    query, key, value = (_heads_first(x) for x in (query, key, value))
    attended = _attend(query, key, value, per_head, start)
    return attended.reshape(batch, heads, *attended.shape[1:]).swapaxes(1, 2)


def _heads_first(
    x: Float[Array, "batch length heads dim"],
) -> Float[Array, "batch*heads length dim"]:
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])


@jax.custom_vjp
def _attend(query: Array, key: Array, value: Array, per_head: Any, start: Any) -> Array:
    return _forward(query, key, value, per_head, start)[0]


def _forward(
    query: Array, key: Array, value: Array, per_head: Any, start: Any
) -> tuple[Array, tuple[Any, ...]]:
    attended, lse = _each_head(partial(_forward_head, start=start), query, key, value, per_head)
    attended, lse = checkpoint_name((attended, lse), "attended")
    return attended, (query, key, value, per_head, start, attended, lse)


def _backward(saved: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
    query, key, value, per_head, start, attended, lse = saved
    gradients = _each_head(
        partial(_backward_head, start=start),
        *(query, key, value, per_head, attended, lse, gradient),
    )
    return (*gradients, None, None)


_attend.defvjp(_forward, _backward)


def _each_head(function: Callable[..., Any], query: Array, *arrays: Any) -> Any:
    """Apply ``function`` to one head after the other, so that its scores fit in a CPU's cache.

    Heads of a single block are computed together, which saves the loop.

    Args:
        function: takes the arrays of one head, without their leading axis.
        query: [batch * heads, queries, dim].
        arrays: further arrays with the same leading axis, or tuples of them and None.
    """
    if query.shape[1] <= BLOCK:
        return jax.vmap(function)(query, *arrays)
    return jax.lax.map(lambda head: function(*head), (query, *arrays))


def _blocks(queries: int, keys: int, start: Any) -> list[tuple[slice, slice]]:
    """Blocks of queries, each with the keys that its queries may see."""
    firsts = range(0, queries, BLOCK)
    ends = [min(first + BLOCK, queries) for first in firsts]
    seen = [start + end if isinstance(start, int) else keys for end in ends]
    return [
        (slice(first, end), slice(0, last))
        for first, end, last in zip(firsts, ends, seen, strict=True)
    ]


def _scores(
    query: Array, key: Array, per_head: Any, rows: slice, columns: slice, start: Any
) -> Array:
    """Masked float32 scores [rows, columns] of query [queries, dim] and key [keys, dim]."""
    slope, segments = per_head
    q_pos, k_pos = start + jnp.arange(rows.start, rows.stop), jnp.arange(columns.stop)
    scores = _product("qd,kd->qk", query[rows], key[columns])
    if slope is not None:
        # Relative to the block, since rounding errors grow with the positions.
        scores = scores + slope * (k_pos - q_pos[-1]).astype(jnp.float32)
    mask = k_pos <= q_pos[:, None]
    if segments is not None:
        mask = mask & (segments[q_pos][:, None] == segments[columns])
    return jnp.where(mask, scores, jnp.finfo(jnp.float32).min)


def _forward_head(
    query: Array, key: Array, value: Array, per_head: Any, *, start: Any
) -> tuple[Array, Array]:
    """Attention of one head, [queries, dim], and the log of each row's sum, [queries, 1]."""
    attended, lse = [], []
    for rows, columns in _blocks(len(query), len(key), start):
        scores = _scores(query, key, per_head, rows, columns, start)
        row_max = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - row_max)
        sums = weights.sum(axis=-1, keepdims=True)
        block = _product("qk,kd->qd", weights.astype(value.dtype), value[columns])
        attended.append((block / sums).astype(value.dtype))
        lse.append(row_max + jnp.log(sums))
    return jnp.concatenate(attended), jnp.concatenate(lse)


def _backward_head(
    query: Array,
    key: Array,
    value: Array,
    per_head: Any,
    attended: Array,
    lse: Array,
    gradient: Array,
    *,
    start: Any,
) -> tuple[Array, Array, Array]:
    """Gradients of one head's query, key and value from that of ``attended``, each [..., dim]."""
    dq = []
    dk, dv = (jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    delta = jnp.sum(
        attended.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1, keepdims=True
    )
    for rows, columns in _blocks(len(query), len(key), start):
        scores = _scores(query, key, per_head, rows, columns, start)
        weights = jnp.exp(scores - lse[rows])
        dp = _product("qd,kd->qk", gradient[rows], value[columns])
        ds = (weights * (dp - delta[rows])).astype(query.dtype)
        dq.append(_product("qk,kd->qd", ds, key[columns]).astype(query.dtype))
        dk = dk.at[columns].add(_product("qk,qd->kd", ds, query[rows]))
        dv = dv.at[columns].add(_product("qk,qd->kd", weights.astype(value.dtype), gradient[rows]))
    return jnp.concatenate(dq), dk.astype(key.dtype), dv.astype(value.dtype)


def _product(formula: str, left: Array, right: Array) -> Array:
    return jnp.einsum(
        formula,
        left,
        right,
        precision=precision_of(left.dtype),
        preferred_element_type=jnp.float32,
    )
