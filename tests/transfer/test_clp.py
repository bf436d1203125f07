import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from clp_jax.mesh import make_mesh
from clp_jax.transfer import clp


def tables(mean, shared=203, missing=101, helper_dim=12, source_dim=20, seed=0):
    """Random rows; with a mean, cosines are mostly positive, as in large published models."""
    rng = np.random.default_rng(seed)
    helper = rng.normal(size=(missing + shared, helper_dim)) + mean
    source = rng.normal(size=(shared, source_dim)) + 0.3
    tables = helper[:missing], helper[missing:], source
    return tuple(table.astype(np.float32) for table in tables)


def test_equals_the_paper_for_anisotropic_rows(mesh, oracle, row_error):
    inputs = tables(mean=1.0)
    rows, _ = clp.combine(*inputs, mesh)
    assert rows.dtype == np.float32
    assert row_error(rows, oracle.clp(*inputs)).max() < 1e-5


def test_equals_the_paper_for_random_rows_as_far_as_they_are_conditioned(mesh, oracle, row_error):
    inputs = tables(mean=0.0)
    rows, condition = clp.combine(*inputs, mesh)
    # A divisor that cancels magnifies rounding by 1/c: 1e-5 where c is 0.01.
    assert np.abs(condition).min() < 0.01
    assert (row_error(rows, oracle.clp(*inputs)) * np.abs(condition)).max() < 1e-7


@pytest.mark.parametrize("mean", [0.0, 0.2, 1.0])
def test_condition_equals_the_explicit_weights(mesh, oracle, mean):
    inputs = tables(mean)
    _, condition = clp.combine(*inputs, mesh)
    np.testing.assert_allclose(condition, oracle.condition(*inputs[:2]), atol=1e-6)
    assert (np.abs(condition) <= oracle.signed_share(*inputs[:2]) + 1e-6).all()


def test_condition_of_equal_cancelling_and_opposite_weights(mesh):
    one, two = np.eye(2, dtype=np.float32)
    source = np.ones((4, 3), np.float32)
    aligned, balanced = np.stack([one] * 4), np.stack([one, -one, one, -one])
    assert clp.combine(one[None], aligned, source, mesh)[1] == pytest.approx(1)
    assert clp.combine(-one[None], aligned, source, mesh)[1] == pytest.approx(-1)
    assert clp.combine(one[None], balanced, source, mesh)[1] == 0
    assert clp.combine(two[None], aligned, source, mesh)[1] == 0


@pytest.mark.parametrize("mean", [0.2, 1.0])
def test_condition_bounds_the_length_of_a_row(mesh, mean):
    inputs = tables(mean)
    rows, condition = clp.combine(*inputs, mesh)
    typical = np.sqrt(np.mean(np.sum(inputs[2] ** 2, axis=1)))
    positive = condition > 0
    lengths = np.linalg.norm(rows[positive], axis=1)
    assert (lengths <= 1.0001 * typical / condition[positive]).all()


def test_no_missing_token(mesh):
    _, overlap_helper, overlap_source = tables(mean=1.0)
    rows, condition = clp.combine(overlap_helper[:0], overlap_helper, overlap_source, mesh)
    assert rows.shape == (0, 20)
    assert condition.shape == (0,)


def test_only_the_moments_travel_between_devices():
    mesh = make_mesh(2, 2, 2)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    shapes = (64, 6), (128, 6), (128, 10)
    abstract = [jax.ShapeDtypeStruct(shape, np.float32, sharding=rows) for shape in shapes]
    program = clp.closed_form.lower(*abstract, 128).compile().as_text()
    assert "all-reduce" in program
    assert not re.search("all-gather|all-to-all|collective-permute", program)
