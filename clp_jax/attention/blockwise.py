"""Attention in plain XLA operations, without an array of all scores: for CPUs and any device.

Only the scores of one block of queries exist at a time, for the heads that share keys. Keys after
the block or before its window are skipped. The backward pass recomputes the scores from the
logarithm of each row's sum (Dao et al. 2022, arXiv 2205.14135, algorithm 4).
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
    """Causal attention whose largest array has heads / kv_heads * `BLOCK` * keys elements.

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
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    attended = _attend(
        _Kind(window, softcap),
        query.reshape(batch * kv_heads, -1, queries, dim),
        *(x.reshape(batch * kv_heads, -1, dim) for x in (key, value)),
        None if slopes is None else jnp.tile(slopes.reshape(kv_heads, -1), (batch, 1)),
        None if segments is None else jnp.repeat(segments, kv_heads, axis=0),
        start,
    )
    return attended.reshape(batch, heads, queries, dim).swapaxes(1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    kind: _Kind, query: Array, key: Array, value: Array, slopes: Any, segments: Any, start: Any
) -> Array:
    return _forward(kind, query, key, value, slopes, segments, start)[0]


def _forward(
    kind: _Kind, query: Array, key: Array, value: Array, slopes: Any, segments: Any, start: Any
) -> tuple[Array, tuple[Any, ...]]:
    each = _each_of(query.shape[2])
    forward = partial(_forward_group, kind=kind, start=start)
    attended, lse = each(forward, (query, slopes), (key, value, segments))
    attended, lse = checkpoint_name((attended, lse), "attended")
    return attended, (query, key, value, slopes, segments, start, attended, lse)


def _backward(kind: _Kind, saved: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
    query, key, value, slopes, segments, start, attended, lse = saved
    each = _each_of(query.shape[2])
    backward = partial(_backward_group, kind=kind, start=start)
    queries = query, slopes, attended, lse, gradient
    return (*each(backward, queries, (key, value, segments)), None, None, None)


_attend.defvjp(_forward, _backward)


def _each_of(queries: int) -> Callable[..., Any]:
    """How to apply a function to each group of heads, in arrays, or tuples of them, and None.

    One group follows the other, so that the scores fit in a CPU's cache. Groups of a single block
    are computed together, which saves the loop.
    """

    def together(function: Callable[..., Any], *groups: Any) -> Any:
        return jax.vmap(function)(*groups)

    def in_turn(function: Callable[..., Any], *groups: Any) -> Any:
        return jax.lax.map(lambda group: function(*group), groups)

    return together if queries <= BLOCK else in_turn


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
    query: Array, slopes: Any, keys: Any, kind: _Kind, rows: slice, columns: slice, start: Any
) -> Array:
    """Masked float32 scores [heads, rows, columns] of queries [heads, queries, dim]."""
    key, _, segments = keys
    q_pos = start + jnp.arange(rows.start, rows.stop)
    k_pos = jnp.arange(columns.start, columns.stop)[None, :]
    scores = capped(_product("hqd,kd->hqk", query[:, rows], key[columns]), kind.softcap)
    if slopes is not None:
        # Relative to the block, since rounding errors grow with the positions.
        distances = (k_pos - q_pos[-1]).astype(jnp.float32)
        scores = scores + slopes[:, None, None] * distances[None]
    mask = seen_by(q_pos[:, None], k_pos, kind.window)
    if segments is not None:
        mask = mask & (segments[q_pos][:, None] == segments[columns][None, :])
    return jnp.where(mask[None], scores, jnp.finfo(jnp.float32).min)


def _forward_group(queries: Any, keys: Any, *, kind: _Kind, start: Any) -> tuple[Array, Array]:
    """Attention of the heads that share keys, [heads, queries, dim], and the log of each row's sum.

    The latter is [heads, queries, 1].
    """
    query, slopes = queries
    key, value, _ = keys
    attended, lse = [], []
    for rows, columns in _blocks(query.shape[1], len(key), start, kind.window):
        scores = _scores(query, slopes, keys, kind, rows, columns, start)
        row_max = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - row_max)
        sums = weights.sum(axis=-1, keepdims=True)
        block = _product("hqk,kd->hqd", weights.astype(value.dtype), value[columns])
        attended.append((block / sums).astype(value.dtype))
        lse.append(row_max + jnp.log(sums))
    return jnp.concatenate(attended, axis=1), jnp.concatenate(lse, axis=1)


def _backward_group(
    queries: Any, keys: Any, *, kind: _Kind, start: Any
) -> tuple[Array, Array, Array]:
    """Gradients of the queries, of the key and of the value that these heads share."""
    query, slopes, attended, lse, gradient = queries
    key, value, _ = keys
    dq = []
    dk, dv = (jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    delta = jnp.sum(
        attended.astype(jnp.float32) * gradient.astype(jnp.float32), axis=-1, keepdims=True
    )
    for rows, columns in _blocks(query.shape[1], len(key), start, kind.window):
        scores = _scores(query, slopes, keys, kind, rows, columns, start)
        weights = jnp.exp(scores - lse[:, rows])
        dp = _product("hqd,kd->hqk", gradient[:, rows], value[columns])
        ds = through_cap(weights * (dp - delta[:, rows]), scores, kind.softcap).astype(query.dtype)
        dq.append(_product("hqk,kd->hqd", ds, key[columns]).astype(query.dtype))
        dk = dk.at[columns].add(_product("qk,qd->kd", _flat(ds), _flat(query[:, rows])))
        weights = weights.astype(value.dtype)
        dv = dv.at[columns].add(_product("qk,qd->kd", _flat(weights), _flat(gradient[:, rows])))
    return jnp.concatenate(dq, axis=1), dk.astype(key.dtype), dv.astype(value.dtype)


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _product(formula: str, left: Array, right: Array) -> Array:
    return jnp.einsum(
        formula,
        left,
        right,
        precision=precision_of(left.dtype),
        preferred_element_type=jnp.float32,
    )
