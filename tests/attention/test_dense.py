import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.attention import dropout, precision_of
from clp_jax.attention.dense import attend_dense


@pytest.mark.parametrize("start", [0, 5, 8])
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_equals_the_formula(make_problem, assert_solved, start, alibi, packed):
    problem = make_problem(9, 4, alibi=alibi, packed=packed, start=start)
    found = problem.computed(attend_dense, scale=problem.scale, start=start)
    assert_solved(found, problem.solution(), 2e-6)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_windowed_and_capped_from_a_position_on(
    make_problem, assert_solved, kv_heads, traced
):
    problem = make_problem(
        13, 4, heads=4, kv_heads=kv_heads, window=5, softcap=2.0, packed=True, start=6
    )
    start = jnp.int32(6) if traced else 6
    found = problem.computed(attend_dense, scale=problem.scale, start=start)
    assert_solved(found, problem.solution(), 2e-6)
    found = problem.computed(attend_dense, "bfloat16", scale=problem.scale, start=start)
    assert_solved(found, problem.solution(), 1e-2)


def test_the_softmax_is_float32_whatever_the_inputs():
    query = jnp.ones((1, 2048, 1, 8), jnp.bfloat16)
    value = jnp.ones((1, 2048, 1, 8), jnp.bfloat16)
    attended = attend_dense(query, query, value, scale=1.0)
    assert attended.dtype == jnp.bfloat16
    np.testing.assert_array_equal(attended[0, -1].astype(jnp.float32), 1.0)


def test_dropout():
    x = jnp.ones(10_000)
    dropped = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float(dropped.mean()) - 1.0) < 0.02
    assert dropout(x, 0.25, None) is x


def test_float32_is_multiplied_as_float32():
    assert precision_of(jnp.float32) == jax.lax.Precision.HIGHEST
    assert precision_of(jnp.bfloat16) == jax.lax.Precision.DEFAULT
