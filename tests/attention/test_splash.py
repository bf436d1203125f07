from functools import partial

import pytest

from clp_jax.attention.splash import attend_splash, make_kernel

# In float32, ALiBi is rounded at the size of slope * position, not of its differences.


@pytest.mark.parametrize(
    ("length", "head_dim", "alibi", "packed", "dtype", "tolerance"),
    [
        (512, 64, True, False, "float32", 1e-5),
        (384, 80, True, True, "float32", 1e-5),
        (128, 96, False, True, "float32", 1e-5),
        (256, 112, False, False, "bfloat16", 1e-2),
        (256, 128, True, True, "bfloat16", 1e-2),
    ],
)
def test_equals_the_formula(
    make_problem, assert_solved, length, head_dim, alibi, packed, dtype, tolerance
):
    problem = make_problem(length, head_dim, alibi=alibi, packed=packed, batch=1).scaled()
    kernel = make_kernel(length, heads=3, interpret=True)
    found = problem.computed(partial(attend_splash, kernel=kernel), dtype, start=0)
    assert_solved(found, problem.solution(), tolerance)
