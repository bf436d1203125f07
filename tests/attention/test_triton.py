from functools import partial

import jax
import jax.numpy as jnp
import pytest

from clp_jax.attention import alibi_slopes
from clp_jax.attention.triton import attend_triton

from ..marks import slow


@pytest.mark.parametrize(
    ("length", "head_dim", "alibi", "packed", "dtype", "tolerance"),
    [
        slow(256, 64, True, False, "float32", 3e-6),
        (384, 80, True, True, "float32", 3e-6),
        slow(128, 96, False, True, "float32", 3e-6),
        slow(256, 112, False, False, "bfloat16", 1e-2),
        slow(256, 128, True, True, "bfloat16", 1e-2),
        slow(128, 4, True, False, "float32", 3e-6),
    ],
)
def test_equals_the_formula(
    make_problem, assert_solved, length, head_dim, alibi, packed, dtype, tolerance
):
    problem = make_problem(length, head_dim, alibi=alibi, packed=packed).scaled()
    found = problem.computed(partial(attend_triton, interpret=True), dtype, start=0)
    assert_solved(found, problem.solution(), tolerance)


@pytest.mark.parametrize(
    ("head_dim", "kv_heads", "options", "dtype", "tolerance"),
    [
        slow(16, 2, {}, "float32", 3e-6),
        (16, 1, {"window": 70, "softcap": 2.0}, "float32", 3e-6),
        slow(80, 2, {"window": 200, "packed": True, "alibi": True}, "float32", 3e-6),
        slow(16, 6, {"window": 1000, "softcap": 2.0, "packed": True}, "float32", 3e-6),
        (64, 3, {"window": 2}, "bfloat16", 1e-2),
        slow(256, 1, {"window": 100, "softcap": 2.0, "packed": True}, "bfloat16", 1e-2),
    ],
)
def test_grouped_windowed_and_capped(
    make_problem, assert_solved, head_dim, kv_heads, options, dtype, tolerance
):
    problem = make_problem(384, head_dim, heads=6, kv_heads=kv_heads, batch=1, **options).scaled()
    found = problem.computed(partial(attend_triton, interpret=True), dtype)
    assert_solved(found, problem.solution(), tolerance)


@pytest.mark.parametrize("dtype", [slow("float32"), "bfloat16"])
def test_queries_that_start_in_the_middle_of_a_row(make_problem, assert_solved, dtype):
    problem = make_problem(
        384, 16, heads=4, kv_heads=2, alibi=True, window=150, packed=True, start=128
    ).scaled()
    attend = partial(attend_triton, interpret=True, start=jnp.int32(128))
    tolerance = {"float32": 3e-6, "bfloat16": 1e-2}[dtype]
    assert_solved(problem.computed(attend, dtype), problem.solution(), tolerance)


@pytest.mark.parametrize("dtype", [slow("float32"), "bfloat16"])
@pytest.mark.parametrize(
    ("head_dim", "kv_heads", "options"),
    [
        slow(64, 2, {"slopes": alibi_slopes(2)}),
        (80, 2, {"slopes": alibi_slopes(2)}),
        slow(128, 1, {"slopes": alibi_slopes(2), "window": 50}),
        (256, 1, {"window": 50, "softcap": 30.0}),
    ],
)
def test_becomes_three_kernels_for_gpus(head_dim, kv_heads, options, dtype):
    """As far as it goes without the compiler for GPUs."""

    def step(query, key, value, gradient, segments):
        attend = partial(attend_triton, segments=segments, **options)
        attended, transpose = jax.vjp(attend, query, key, value)
        return attended, transpose(gradient)

    x = jax.ShapeDtypeStruct((1, 256, 2, head_dim), dtype)
    keys = jax.ShapeDtypeStruct((1, 256, kv_heads, head_dim), dtype)
    segments = jax.ShapeDtypeStruct((1, 256), jnp.int32)
    traced = jax.jit(step).trace(x, keys, keys, x, segments)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("xla.gpu.triton") == 3
    assert "256x256x" not in text
