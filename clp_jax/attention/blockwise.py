"""Attention in plain XLA operations, without an array of all scores: for CPUs and any device.

Only the scores of one block of queries with one head of keys exist at a time, and keys after the
block or before its window are skipped. The backward pass recomputes the scores from the logarithm
of each row's sum (Dao et al. 2022, arXiv 2205.14135, algorithm 4).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from clp_jax.attention.precision import precision_of
from clp_jax.attention.scores import capped, seen_by, through_cap

BLOCK = 128
"""Positions of the queries whose scores exist at the same time."""


class _Kind(NamedTuple):
    """What is static about the scores: the window and the soft cap."""

    window: int | None
    softcap: float | None


def attend_blockwise(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys kv_heads dim"],
    value: Float[Array, "batch keys kv_heads dim"],
    *,
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    segments: Int[Array, "batch keys"] | None = None,
    start: int | Int[Array, ""] = 0,
) -> Float[Array, "batch queries heads dim"]:
    """Causal attention whose largest array has `BLOCK` * heads / kv_heads * keys elements.

    Lengths are arbitrary. If ``start`` is a Python int, keys that no query of a block sees are
    skipped.

    Args:
        query: queries at the positions ``start``, ``start`` + 1, ..., multiplied by the scale.
        key: keys at the positions 0, 1, ...
        value: values at the same positions.
        slopes: ALiBi slope of each head, or None.
        window: number of keys that a query sees, or None.
        softcap: soft cap of the scores, or None.
        segments: the document of each position, or None if all are of one document.
        start: position of the first query.
    """
    batch, queries, heads, dim = query.shape
    kv_heads = key.shape[2]
    per_head = (
        None if slopes is None else jnp.tile(slopes.reshape(kv_heads, -1), (batch, 1)),
        None if segments is None else jnp.repeat(segments, kv_heads, axis=0),
    )
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    attended = _attend(
        _Kind(window, softcap),
        query.reshape(batch * kv_heads, -1, queries, dim),
        *(x.reshape(batch * kv_heads, -1, dim) for x in (key, value)),
        per_head,
        start,
    )
    return attended.reshape(batch, heads, queries, dim).swapaxes(1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    kind: _Kind, query: Array, key: Array, value: Array, per_head: Any, start: Any
) -> Array:
    return _forward(kind, query, key, value, per_head, start)[0]


def _forward(
    kind: _Kind, query: Array, key: Array, value: Array, per_head: Any, start: Any
) -> tuple[Array, tuple[Any, ...]]:
    attended, lse = _each_head(
        partial(_forward_head, kind=kind, start=start), query, key, value, per_head
    )
    attended, lse = checkpoint_name((attended, lse), "attended")
    return attended, (query, key, value, per_head, start, attended, lse)


def _backward(kind: _Kind, saved: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
    query, key, value, per_head, start, attended, lse = saved
    gradients = _each_head(
        partial(_backward_head, kind=kind, start=start),
        *(query, key, value, per_head, attended, lse, gradient),
    )
    return (*gradients, None, None)


_attend.defvjp(_forward, _backward)


def _each_head(function: Callable[..., Any], query: Array, *arrays: Any) -> Any:
    """Apply ``function`` to one head of keys after the other, so that scores fit in a CPU's cache.

    Heads of a single block are computed together, which saves the loop.

    Args:
        function: takes the arrays of one head of keys, without their leading axis.
        query: [batch * kv_heads, heads / kv_heads, queries, dim].
        arrays: further arrays with the same leading axis, or tuples of them and None.
    """
    if query.shape[2] <= BLOCK:
        return jax.vmap(function)(query, *arrays)
    return jax.lax.map(lambda head: function(*head), (query, *arrays))


def _blocks(queries: int, keys: int, start: Any, window: int | None) -> list[tuple[slice, slice]]:
    """Blocks of queries, each with the keys that its queries may see."""
    blocks = []
    for first in range(0, queries, BLOCK):
        end = min(first + BLOCK, queries)
        seen = slice(0, keys)
        if isinstance(start, int):
            oldest = 0 if window is None else max(0, start + first + 1 - window)
            seen = slice(oldest, start + end)
        blocks.append((slice(first, end), seen))
    return blocks


def _scores(
    query: Array, key: Array, per_head: Any, kind: _Kind, rows: slice, columns: slice, start: Any
) -> Array:
    """Masked float32 scores [group, rows, columns] of query [group, queries, dim] and key."""
    slope, segments = per_head
    q_pos = start + jnp.arange(rows.start, rows.stop)
    k_pos = jnp.arange(columns.start, columns.stop)
    scores = capped(_product("gqd,kd->gqk", query[:, rows], key[columns]), kind.softcap)
    if slope is not None:
        # Relative to the block, since rounding errors grow with the positions.
        scores = scores + slope[:, None, None] * (k_pos - q_pos[-1]).astype(jnp.float32)
    mask = seen_by(q_pos[:, None], k_pos, kind.window)
    if segments is not None:
        mask = mask & (segments[q_pos][:, None] == segments[columns])
    return jnp.where(mask, scores, jnp.finfo(jnp.float32).min)


def _forward_head(
    query: Array, key: Array, value: Array, per_head: Any, *, kind: _Kind, start: Any
) -> tuple[Array, Array]:
    """Attention to one head, [group, queries, dim], and the log of each row's sum, [..., 1]."""
    attended, lse = [], []
    for rows, columns in _blocks(query.shape[1], len(key), start, kind.window):
        scores = _scores(query, key, per_head, kind, rows, columns, start)
        row_max = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - row_max)
        sums = weights.sum(axis=-1, keepdims=True)
        block = _product("gqk,kd->gqd", weights.astype(value.dtype), value[columns])
        attended.append((block / sums).astype(value.dtype))
        lse.append(row_max + jnp.log(sums))
    return jnp.concatenate(attended, axis=1), jnp.concatenate(lse, axis=1)


def _backward_head(
    query: Array,
    key: Array,
    value: Array,
    per_head: Any,
    attended: Array,
    lse: Array,
    gradient: Array,
    *,
    kind: _Kind,
    start: Any,
) -> tuple[Array, Array, Array]:
    """Gradients of the query, key and value of one head of keys from that of ``attended``."""
    dq = []
    dk, dv = (jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    delta = jnp.sum(
        attended.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1, keepdims=True
    )
    for rows, columns in _blocks(query.shape[1], len(key), start, kind.window):
        scores = _scores(query, key, per_head, kind, rows, columns, start)
        weights = jnp.exp(scores - lse[:, rows])
        dp = _product("gqd,kd->gqk", gradient[:, rows], value[columns])
        ds = through_cap(weights * (dp - delta[:, rows]), scores, kind.softcap).astype(query.dtype)
        dq.append(_product("gqk,kd->gqd", ds, key[columns]).astype(query.dtype))
        dk = dk.at[columns].add(_product("gqk,gqd->kd", ds, query[:, rows]))
        weights = weights.astype(value.dtype)
        dv = dv.at[columns].add(_product("gqk,gqd->kd", weights, gradient[:, rows]))
    return jnp.concatenate(dq, axis=1), dk.astype(key.dtype), dv.astype(value.dtype)


def _product(formula: str, left: Array, right: Array) -> Array:
    return jnp.einsum(
        formula,
        left,
        right,
        precision=precision_of(left.dtype),
        preferred_element_type=jnp.float32,
    )
