"""Attention on GPUs: Pallas kernels with all masks, ALiBi and the soft cap inside.

The backward pass has two kernels, one for the queries and one for the keys and values, which
recompute the weights from the logarithm of each row's sum (Dao 2023, arXiv 2307.08691).

Exponentials are powers of two. ALiBi is relative to a position near the query, since rounding
errors grow with the positions.

Shapes: query, key and value are [batch, length, heads, dim] outside the kernels, and ``lse`` and
``delta`` [batch, heads, length]. A kernel sees one head of one row: references of [length, width]
or [length]; ``width`` is ``dim`` rounded up to a power of two, at least 16. The kernel of the keys
sees all heads of queries that share its head of keys: [length, group, width] or [group, length].
Scores are [own, other] (see `_Blocks`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from clp_jax.attention.precision import precision_of
from clp_jax.attention.scores import capped, seen_by, through_cap

MULTIPLE = 128
"""The kernels need lengths that are multiples of this; their blocks divide it."""
WARPS = 8
LOG2_E = float(np.log2(np.e))
MASK_VALUE = float(jnp.finfo(jnp.float32).min)


def attend_triton(
    query: Float[Array, "batch queries heads dim"],
    key: Float[Array, "batch keys kv_heads dim"],
    value: Float[Array, "batch keys kv_heads dim"],
    *,
    slopes: Float[Array | np.ndarray, " heads"] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    segments: Int[Array, "batch keys"] | None = None,
    start: int | Int[Array, ""] = 0,
    interpret: bool = False,
) -> Float[Array, "batch queries heads dim"]:
    """Causal attention; the other arguments are those of `attend_blockwise`.

    Head sizes that are not a power of two are padded in registers only.

    Args:
        query: a multiple of `MULTIPLE` queries.
        key: a multiple of `MULTIPLE` keys.
        value: the values.
        slopes: ALiBi slope of each head, or None.
        window: number of keys that a query sees, or None.
        softcap: soft cap of the scores, or None.
        segments: the document of each position, or None if all are of one document.
        start: position of the first query.
        interpret: run without a GPU.
    """
    shared = _Shared(
        jnp.full(1, start, jnp.int32), None if slopes is None else jnp.asarray(slopes), segments
    )
    return _attend(_Kind(window, softcap, interpret), query, key, value, shared)


class _Kind(NamedTuple):
    """What is static about the scores, and about where they are computed."""

    window: int | None
    softcap: float | None
    interpret: bool


class _Shared(NamedTuple):
    """Arrays, or references in a kernel, that all kernels read besides query, key and value."""

    start: Any
    slopes: Any
    segments: Any


class _Blocks(NamedTuple):
    """Positions of a kernel's own block and of each block in its loop, and the pipeline stages."""

    own: int
    other: int
    stages: int


def _blocks(x: Array) -> _Blocks:
    """Block sizes that fit the shared memory of GPUs since Ampere and the registers of Hopper."""
    wide, widest = x.shape[-1] > 64, x.shape[-1] > 128
    if x.dtype == jnp.float32:
        return _Blocks(own=32 if widest else 64, other=16 if wide else 32, stages=2)
    if widest:
        return _Blocks(own=64, other=32, stages=2)
    return _Blocks(own=128, other=64, stages=2 if wide else 3)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(kind: _Kind, query: Array, key: Array, value: Array, shared: _Shared) -> Array:
    return _forward(kind, query, key, value, shared)[0]


def _forward(
    kind: _Kind, query: Array, key: Array, value: Array, shared: _Shared
) -> tuple[Array, tuple[Any, ...]]:
    of_rows = jax.ShapeDtypeStruct((query.shape[0], query.shape[2], query.shape[1]), jnp.float32)
    attended, lse = _call(
        _forward_kernel,
        kind,
        shared=shared,
        keys=(key, value),
        queries=(query,),
        results=(query, of_rows),
    )
    attended, lse = checkpoint_name((attended, lse), "attended")
    return attended, (query, key, value, shared, attended, lse)


def _backward(
    kind: _Kind, saved: tuple[Any, ...], gradient: Array
) -> tuple[Array, Array, Array, None]:
    query, key, value, shared, attended, lse = saved
    delta = jnp.einsum("bqhd,bqhd->bhq", attended.astype(jnp.float32), gradient.astype(jnp.float32))
    call = partial(
        _call,
        kind=kind,
        shared=shared,
        keys=(key, value),
        queries=(query, gradient, lse, delta),
    )
    (dq,) = call(_query_kernel, results=(query,))
    dk, dv = call(_key_kernel, results=(key, value), of_keys=True)
    return dq, dk, dv, None


_attend.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None],
    kind: _Kind,
    *,
    shared: _Shared,
    keys: tuple[Array, ...],
    queries: tuple[Array, ...],
    results: tuple[Any, ...],
    of_keys: bool = False,
) -> Any:
    """Run a kernel for each block of the results, head and row; it can read its whole head."""
    batch, length, heads, dim = results[0].shape
    blocks, width = _blocks(results[0]), max(16, pl.next_power_of_2(dim))
    group = queries[0].shape[2] // keys[0].shape[2]
    query_heads = group if of_keys else None

    def whole_key(x: Any) -> pl.BlockSpec:
        served = 1 if of_keys else group
        return pl.BlockSpec((None, x.shape[1], None, width), lambda i, h, b: (b, 0, h // served, 0))

    def whole_query(x: Any) -> pl.BlockSpec:
        if len(x.shape) == 4:
            return pl.BlockSpec(
                (None, x.shape[1], query_heads, width), lambda i, h, b: (b, 0, h, 0)
            )
        return pl.BlockSpec((None, query_heads, x.shape[2]), lambda i, h, b: (b, h, 0))

    of_shared = _Shared(
        pl.BlockSpec((1,), lambda i, h, b: (0,)),
        None if shared.slopes is None else pl.BlockSpec((query_heads or 1,), lambda i, h, b: (h,)),
        None
        if shared.segments is None
        else pl.BlockSpec((None, shared.segments.shape[1]), lambda i, h, b: (b, 0)),
    )
    return pl.pallas_call(
        partial(kernel, kind=kind, blocks=blocks, dim=dim),
        grid=(length // blocks.own, heads, batch),
        in_specs=[of_shared, *map(whole_key, keys), *map(whole_query, queries)],
        out_specs=[whole_key(x) if of_keys else whole_query(x) for x in results],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=blocks.stages),
        interpret=kind.interpret,
        name=kernel.__name__.strip("_"),
    )(shared, *keys, *queries)


def _forward_kernel(
    shared: _Shared,
    key_ref: Any,
    value_ref: Any,
    query_ref: Any,
    attended_ref: Any,
    lse_ref: Any,
    *,
    kind: _Kind,
    blocks: _Blocks,
    dim: int,
) -> None:
    rows = pl.Slice(pl.program_id(0) * blocks.own, blocks.own)
    query = _load(query_ref, (rows,), dim)

    def add(index: Array, carry: Any, *, masked: bool) -> Any:
        attended, row_max, sums = carry
        columns = pl.Slice(index * blocks.other, blocks.other)
        scores = _product(query, _load(key_ref, (columns,), dim), transposed=True)
        scores = _exponents(scores, shared, kind, rows, columns, masked=masked)
        new_max = jnp.maximum(row_max, scores.max(axis=1))
        weights, correction = jnp.exp2(scores - new_max[:, None]), jnp.exp2(row_max - new_max)
        value = _load(value_ref, (columns,), dim)
        added = _product(weights.astype(value.dtype), value)
        return (
            attended * correction[:, None] + added,
            new_max,
            sums * correction + weights.sum(axis=1),
        )

    nothing = jnp.zeros(query.shape, jnp.float32)
    lowest, none = jnp.full(blocks.own, MASK_VALUE, jnp.float32), jnp.zeros(blocks.own, jnp.float32)
    attended, row_max, sums = _over_keys(add, (nothing, lowest, none), shared, kind, blocks)
    _store(attended_ref, rows, attended / sums[:, None], dim)
    lse_ref[rows] = row_max + jnp.log2(sums)


def _query_kernel(
    shared: _Shared,
    key_ref: Any,
    value_ref: Any,
    query_ref: Any,
    gradient_ref: Any,
    lse_ref: Any,
    delta_ref: Any,
    dq_ref: Any,
    *,
    kind: _Kind,
    blocks: _Blocks,
    dim: int,
) -> None:
    rows = pl.Slice(pl.program_id(0) * blocks.own, blocks.own)
    query, gradient = _load(query_ref, (rows,), dim), _load(gradient_ref, (rows,), dim)
    lse, delta = lse_ref[rows], delta_ref[rows]

    def add(index: Array, dq: Array, *, masked: bool) -> Array:
        columns = pl.Slice(index * blocks.other, blocks.other)
        key = _load(key_ref, (columns,), dim)
        scores = _product(query, key, transposed=True)
        scores = _exponents(scores, shared, kind, rows, columns, masked=masked)
        dp = _product(gradient, _load(value_ref, (columns,), dim), transposed=True)
        weights = jnp.exp2(scores - lse[:, None])
        ds = _through_cap(weights * (dp - delta[:, None]), scores, kind)
        return dq + _product(ds.astype(key.dtype), key)

    dq = _over_keys(add, jnp.zeros(query.shape, jnp.float32), shared, kind, blocks)
    _store(dq_ref, rows, dq, dim)


def _key_kernel(
    shared: _Shared,
    key_ref: Any,
    value_ref: Any,
    query_ref: Any,
    gradient_ref: Any,
    lse_ref: Any,
    delta_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
    *,
    kind: _Kind,
    blocks: _Blocks,
    dim: int,
) -> None:
    """Gradients of a block of keys and values; scores and weights are [keys, queries]."""
    columns = pl.Slice(pl.program_id(0) * blocks.own, blocks.own)
    key, value = _load(key_ref, (columns,), dim), _load(value_ref, (columns,), dim)

    def add(index: Array, carry: Any, *, head: Array, masked: bool) -> Any:
        dk, dv = carry
        rows = pl.Slice(index * blocks.other, blocks.other)
        query, gradient = (_load(ref, (rows, head), dim) for ref in (query_ref, gradient_ref))
        scores = _product(key, query, transposed=True)
        scores = _exponents(
            scores, shared, kind, rows, columns, head=head, masked=masked, keys_first=True
        )
        weights = jnp.exp2(scores - lse_ref[head, rows][None])
        dv += _product(weights.astype(gradient.dtype), gradient)
        dp = _product(value, gradient, transposed=True)
        ds = _through_cap(weights * (dp - delta_ref[head, rows][None]), scores, kind)
        return dk + _product(ds.astype(query.dtype), query), dv

    queries, group, _ = query_ref.shape
    over_queries = _over_queries(columns.start, queries, shared, kind, blocks)

    def add_head(head: Array, sums: Any) -> Any:
        return over_queries(partial(add, head=head), sums)

    nothing = jnp.zeros(key.shape, jnp.float32)
    dk, dv = jax.lax.fori_loop(0, group, add_head, (nothing, nothing))
    _store(dk_ref, columns, dk, dim)
    _store(dv_ref, columns, dv, dim)


def _over_keys(
    add: Callable[..., Any], carry: Any, shared: _Shared, kind: _Kind, blocks: _Blocks
) -> Any:
    """Loop over the blocks of keys that this program's queries see; most are seen by all."""
    first = shared.start[0] + pl.program_id(0) * blocks.own
    last = first + blocks.own - 1
    masked, most = partial(add, masked=True), partial(add, masked=shared.segments is not None)
    begin: int | Array = 0
    end_of_most, end = (first + 1) // blocks.other, last // blocks.other + 1
    if kind.window is not None:
        # The first keys that the first query sees, and the last.
        oldest, of_all = (jnp.maximum(0, query + 1 - kind.window) for query in (first, last))
        begin = jnp.minimum(pl.cdiv(of_all, blocks.other), end_of_most)
        carry = jax.lax.fori_loop(oldest // blocks.other, begin, masked, carry)
    carry = jax.lax.fori_loop(begin, end_of_most, most, carry)
    return jax.lax.fori_loop(end_of_most, end, masked, carry)


def _over_queries(
    first: int | Array, queries: int, shared: _Shared, kind: _Kind, blocks: _Blocks
) -> Callable[[Callable[..., Any], Any], Any]:
    """A loop over the blocks of queries that see the block of keys from ``first`` on."""
    last = first + blocks.own - 1
    documents = shared.segments is not None

    def block(position: int | Array) -> Array:
        return jnp.clip((position - shared.start[0]) // blocks.other, 0, queries // blocks.other)

    def after(position: int | Array) -> Array:
        return block(position + blocks.other - 1)

    begin, begin_of_most = block(first), after(last)
    end = end_of_most = jnp.int32(queries // blocks.other)
    if kind.window is not None:
        # The queries that see the first key end before those that see the last.
        end = after(last + kind.window)
        begin_of_most = jnp.minimum(begin_of_most, end)
        end_of_most = jnp.maximum(begin_of_most, block(first + kind.window))

    def over(add: Callable[..., Any], carry: Any) -> Any:
        masked = partial(add, masked=True)
        carry = jax.lax.fori_loop(begin, begin_of_most, masked, carry)
        carry = jax.lax.fori_loop(begin_of_most, end_of_most, partial(add, masked=documents), carry)
        return carry if kind.window is None else jax.lax.fori_loop(end_of_most, end, masked, carry)

    return over


def _exponents(
    scores: Array,
    shared: _Shared,
    kind: _Kind,
    rows: pl.Slice,
    columns: pl.Slice,
    *,
    head: int | Array = 0,
    masked: bool,
    keys_first: bool = False,
) -> Array:
    """Final scores as exponents of two, and `MASK_VALUE` where a key is masked."""
    of_queries, of_keys = ((None, ...), (..., None)) if keys_first else ((..., None), (None, ...))
    q_pos = shared.start[0] + rows.start + jnp.arange(rows.size)
    k_pos = columns.start + jnp.arange(columns.size)
    scores = capped(scores, kind.softcap) * LOG2_E
    if shared.slopes is not None:
        # The same for a query in every kernel, independent of the block sizes.
        near = (shared.start[0] + rows.start) // MULTIPLE * MULTIPLE
        bias = LOG2_E * shared.slopes[head] * (k_pos - near).astype(jnp.float32)
        scores = scores + bias[of_keys]
    if masked:
        mask = seen_by(q_pos[of_queries], k_pos[of_keys], kind.window)
        if shared.segments is not None:
            same = shared.segments[pl.Slice(columns.start, columns.size)][of_keys]
            own_document = shared.segments[pl.Slice(shared.start[0] + rows.start, rows.size)]
            mask = mask & (same == own_document[of_queries])
        scores = jnp.where(mask, scores, MASK_VALUE)
    return scores


def _through_cap(gradient: Array, scores: Array, kind: _Kind) -> Array:
    """`through_cap` of what `_exponents` returns."""
    cap = None if kind.softcap is None else LOG2_E * kind.softcap
    return through_cap(gradient, scores, cap)


def _load(ref: Any, rows: tuple[Any, ...], dim: int) -> Array:
    width = ref.shape[-1]
    if width == dim:
        return plgpu.load(ref.at[*rows, :])
    return plgpu.load(ref.at[*rows, :], mask=(jnp.arange(width) < dim)[None], other=0.0)


def _store(ref: Any, rows: pl.Slice, x: Array, dim: int) -> None:
    inside = None if ref.shape[-1] == dim else (jnp.arange(ref.shape[-1]) < dim)[None]
    plgpu.store(ref.at[rows, :], x.astype(ref.dtype), mask=inside)


def _product(left: Array, right: Array, *, transposed: bool = False) -> Array:
    return plgpu.dot(left, right, trans_b=transposed, precision=precision_of(left.dtype))
