import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from clp_jax.attention import alibi_slopes
from clp_jax.attention.alibi import POSITIONS, with_alibi
from clp_jax.attention.blockwise import attend_blockwise
from clp_jax.attention.dense import attend_dense
from clp_jax.errors import UserError

from ..marks import slow


@pytest.mark.parametrize("heads", [1, 2, 5, 8, 12, 16, 20, 32, 112])
def test_slopes_are_those_of_transformers(heads):
    mask = torch.ones(1, 2)
    theirs = build_alibi_tensor(mask, heads, torch.float32)[:, 0, 1].numpy()
    np.testing.assert_allclose(alibi_slopes(heads), theirs, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_columns_are_slope_times_position_to_float32_precision(dtype):
    """The longest row whose positions are exact; 12 heads have slopes that bfloat16 has not."""
    slopes, length = alibi_slopes(12), POSITIONS
    query, key = with_alibi(
        jnp.zeros((1, 1, 12, 1), dtype), jnp.zeros((1, length, 12, 1), dtype), slopes
    )
    assert query.dtype == key.dtype == jnp.dtype(dtype)
    query, key = (np.asarray(x.astype(jnp.float32), np.float64)[0] for x in (query, key))
    added = key[:, 0] @ query[0].T
    np.testing.assert_allclose(added, np.arange(length)[:, None] * np.float64(slopes), rtol=1e-7)


def test_more_positions_than_the_columns_distinguish_are_refused():
    query, key = jnp.zeros((1, 1, 2, 1)), jnp.zeros((1, POSITIONS + 1, 2, 1))
    with pytest.raises(UserError, match="65,537 tokens are too long for ALiBi on this device"):
        with_alibi(query, key, alibi_slopes(2))


def blockwise(query, key, value, *, scale, **options):
    return attend_blockwise(query * scale, key, value, **options)


@pytest.mark.parametrize("attend", [attend_dense, blockwise])
@pytest.mark.parametrize("length", [32_769, slow(POSITIONS), slow(200_000)])
def test_long_rows_are_those_of_float64(make_problem, assert_solved, attend, length):
    """The other ways append columns, or subtract positions as `attend_blockwise` does."""
    problem = make_problem(length, 2, alibi=True, start=length - 3)
    found = problem.computed(attend, scale=problem.scale, start=problem.start)
    assert_solved(found, problem.solution(), 5e-6)
