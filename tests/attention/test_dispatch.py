"""What `attend` chooses, and what each device of a mesh does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.attention import attend, dispatch, splash, triton
from clp_jax.mesh import make_mesh

from ..marks import slow

# data, fsdp, tensor, sequence. The last two divide neither the rows nor the heads.
MESHES = [slow((1, 1, 1, 1)), (2, 2, 2, 1), slow((1, 2, 1, 4)), slow((1, 1, 1, 8)), (2, 1, 2, 2),
          (1, 8, 1, 1), slow((1, 1, 8, 1))]  # fmt: skip


def mesh_of(sizes):
    return make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize("packed", [slow(False), True])
def test_every_mesh_equals_the_formula(make_problem, assert_solved, sizes, packed):
    problem = make_problem(201, 16, heads=4, batch=4, alibi=True, packed=packed)
    with jax.set_mesh(mesh_of(sizes)):
        found = problem.computed(attend, scale=jnp.float32(problem.scale))
    assert_solved(found, problem.solution(), 3e-6)


@pytest.mark.parametrize("sizes", [slow((1, 1, 8, 1)), slow((1, 2, 2, 2)), (1, 1, 4, 2)], ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads"), [slow(8, 1), (8, 2), (8, 4), slow(24, 3)], ids=lambda x: str(x)
)
def test_devices_have_the_keys_of_their_queries(
    make_problem, assert_solved, sizes, heads, kv_heads
):
    """The heads of the keys are divided by the axis, fewer than it, or neither."""
    problem = make_problem(
        141, 8, heads=heads, kv_heads=kv_heads, window=50, softcap=2.0, packed=True
    )
    with jax.set_mesh(mesh_of(sizes)):
        found = problem.computed(attend, scale=problem.scale)
    assert_solved(found, problem.solution(), 3e-6)


@pytest.mark.parametrize("sizes", [slow((1, 1, 1, 1)), (1, 2, 2, 2), slow((1, 1, 1, 4))], ids=str)
@pytest.mark.parametrize("devices", ["tpu", "gpu"])
def test_every_mesh_with_kernels_equals_the_formula(
    make_problem, assert_solved, sizes, devices, monkeypatch
):
    """Interpreted; lengths that kernels do not take are filled up."""
    monkeypatch.setattr(dispatch, "platform", lambda mesh: devices)
    monkeypatch.setattr(splash, "make_kernel", partial(splash.make_kernel, interpret=True))
    monkeypatch.setattr(triton, "attend_triton", partial(triton.attend_triton, interpret=True))
    problem = make_problem(200, 16, heads=2, kv_heads=1, alibi=True, window=120, packed=True)
    with jax.set_mesh(mesh_of(sizes)):
        found = problem.computed(attend, scale=problem.scale)
    assert_solved(found, problem.solution(), 1e-5)


def has_scores_of_all(compute, *arrays, length):
    """Whether an array of the program is [..., length, length]."""
    text = jax.jit(compute).lower(*arrays).as_text()
    return f"x{length}x{length}x" in text


@pytest.mark.parametrize("dropped", [False, True])
def test_only_dropout_of_the_weights_needs_all_scores(dropped):
    length = 300
    x = jnp.ones((1, length, 2, 8))
    key = jax.random.key(0)

    def compute(query, rate):
        return attend(query, x, x, scale=1.0, dropout_rate=rate, dropout_key=key)

    assert has_scores_of_all(lambda x: compute(x, 0.5 * dropped), x, length=length) == dropped
    assert not np.array_equal(compute(x, 0.5), compute(x, 0.0))


def test_a_cache_is_continued(make_problem, assert_solved):
    problem = make_problem(40, 16, heads=4, kv_heads=2, alibi=True, window=9, start=39)
    found = problem.computed(attend, scale=problem.scale, start=jnp.int32(39))
    assert_solved(found, problem.solution(), 3e-6)
