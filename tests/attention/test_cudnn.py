"""What cuDNN is given, computed without it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.attention import alibi_slopes
from clp_jax.attention.cudnn import attend_cudnn, serves

from ..marks import slow


@pytest.mark.parametrize(
    ("head_dim", "options"),
    [
        slow(64, {}),
        slow(64, {"alibi": True}),
        slow(80, {"alibi": True}),
        (112, {"alibi": True, "kv_heads": 2, "window": 30}),
        (64, {"kv_heads": 1, "window": 150}),
    ],
)
def test_equals_the_formula(make_problem, assert_solved, head_dim, options):
    problem = make_problem(200, head_dim, heads=4, **options).scaled()

    def attend(*arrays, segments, **options):
        return attend_cudnn(*arrays, implementation="xla", **options)

    assert_solved(problem.computed(attend), problem.solution(), 1e-5)
    assert_solved(problem.computed(attend, "bfloat16"), problem.solution(), 1e-2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"head_dim": 128}, True),
        ({"head_dim": 112, "slopes": alibi_slopes(2)}, True),
        ({"head_dim": 128, "slopes": alibi_slopes(2)}, False),
        ({"head_dim": 12}, False),
        ({"dtype": jnp.float32}, False),
        ({"window": 50}, True),
        ({"softcap": 50.0}, False),
        ({"segments": jnp.zeros((1, 128), jnp.int32)}, False),
        ({"start": jnp.int32(0)}, False),
    ],
)
def test_it_serves_where_it_needs_no_bias(changes, expected):
    options = dict(changes)
    dim, dtype = options.pop("head_dim", 64), options.pop("dtype", jnp.bfloat16)
    assert serves(jnp.zeros((1, 128, 2, dim), dtype), **options) == expected


def test_what_it_keeps_has_the_name_that_layers_keep():
    x = jnp.ones((1, 8, 2, 8))
    attend = partial(attend_cudnn, slopes=None, implementation="xla")
    policy = jax.checkpoint_policies.save_only_these_names("attended")

    def kept(policy):
        saved = jax.vjp(jax.checkpoint(attend, policy=policy), x, x, x)[1]
        return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(saved))

    nothing, named, everything = (
        kept(p) for p in (None, policy, jax.checkpoint_policies.everything_saveable)
    )
    assert nothing < named <= everything
