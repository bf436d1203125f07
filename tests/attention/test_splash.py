from functools import partial

import pytest

from clp_jax.attention.splash import attend_splash, make_kernel

from ..marks import slow

# In float32, ALiBi is rounded at the size of slope * position, not of its differences.


@pytest.mark.parametrize(
    ("length", "head_dim", "alibi", "packed", "dtype", "tolerance"),
    [
        slow(512, 64, True, False, "float32", 1e-5),
        (384, 80, True, True, "float32", 1e-5),
        slow(128, 96, False, True, "float32", 1e-5),
        slow(256, 112, False, False, "bfloat16", 1e-2),
        slow(256, 128, True, True, "bfloat16", 1e-2),
    ],
)
def test_equals_the_formula(
    make_problem, assert_solved, length, head_dim, alibi, packed, dtype, tolerance
):
    problem = make_problem(length, head_dim, alibi=alibi, packed=packed, batch=1).scaled()
    kernel = make_kernel(length, heads=3, interpret=True)
    found = problem.computed(partial(attend_splash, kernel=kernel), dtype, start=0)
    assert_solved(found, problem.solution(), tolerance)


@pytest.mark.parametrize(
    ("kv_heads", "options", "dtype", "tolerance"),
    [
        slow(2, {"alibi": True}, "float32", 1e-5),
        slow(1, {"window": 150, "softcap": 2.0}, "float32", 1e-5),
        (2, {"window": 100, "softcap": 2.0, "packed": True}, "bfloat16", 1e-2),
    ],
)
def test_grouped_windowed_and_capped(
    make_problem, assert_solved, kv_heads, options, dtype, tolerance
):
    problem = make_problem(384, 64, heads=4, kv_heads=kv_heads, batch=1, **options).scaled()
    kernel = make_kernel(384, heads=4, interpret=True, **problem.kind)

    def attend(*arrays, window=None, softcap=None, **options):
        return attend_splash(*arrays, kernel=kernel, **options)

    assert_solved(problem.computed(attend, dtype), problem.solution(), tolerance)
