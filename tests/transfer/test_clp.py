import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from clp_jax.mesh import make_mesh
from clp_jax.transfer.methods.clp import clp, clp_unguarded, combine, row_coherence, unit_sums


def test_equals_the_paper_for_anisotropic_rows(mesh, problem, oracle, row_error):
    asked = problem(mesh=mesh, center=2.0)
    found = clp(asked)
    assert found.rows.dtype == np.float32
    assert row_error(found.rows, oracle.clp(asked)).max() < 1e-5
    assert not any(mask.any() for mask in found.fallback.values())


def test_equals_the_paper_for_random_rows_as_far_as_they_are_conditioned(
    mesh, problem, oracle, row_error
):
    asked = problem(mesh=mesh, center=0.0)
    found = clp_unguarded(asked)
    coherence = np.abs(found.facts["condition"])
    # A divisor that cancels magnifies rounding by 1/c: 1e-5 where c is 0.01.
    assert coherence.min() < 0.01
    assert (row_error(found.rows, oracle.clp(asked)) * coherence).max() < 1e-7
    assert not found.fallback


@pytest.mark.parametrize("center", [0.0, 0.2, 1.0])
def test_coherence_equals_the_explicit_weights(problem, oracle, center):
    asked = problem(center=center)
    coherence = clp_unguarded(asked).facts["condition"]
    np.testing.assert_allclose(coherence, oracle.coherence(asked), atol=1e-6)
    assert (np.abs(coherence) <= oracle.signed_share(asked) + 1e-6).all()


def test_coherence_of_equal_cancelling_and_opposite_weights():
    one, two = np.eye(2, dtype=np.float32)
    source = np.ones((4, 3), np.float32)
    aligned, balanced = np.stack([one] * 4), np.stack([one, -one, one, -one])
    coherence = [
        row_coherence(query[None], unit_sums(anchors, source), 4).item()
        for query, anchors in ((one, aligned), (-one, aligned), (one, balanced), (two, aligned))
    ]
    assert coherence == pytest.approx([1, -1, 0, 0])


@pytest.mark.parametrize("center", [0.2, 1.0])
def test_coherence_bounds_the_length_of_a_row(problem, center):
    asked = problem(center=center)
    found = clp_unguarded(asked)
    coherence = found.facts["condition"]
    typical = np.sqrt(np.mean(np.sum(asked.rows**2, axis=1)))
    positive = coherence > 0
    lengths = np.linalg.norm(found.rows[positive], axis=1)
    assert (lengths <= 1.0001 * typical / coherence[positive]).all()


def test_ill_conditioned_rows_are_the_mean_of_the_nearest(mesh, problem, oracle, row_error):
    asked = problem(mesh=mesh, center=0.2)
    found, ill = clp(asked), oracle.coherence(asked) < 0.5
    assert 0 < ill.sum() < len(ill)
    np.testing.assert_array_equal(found.fallback["top-k softmax"], ill)
    assert row_error(found.rows, oracle.guarded_clp(asked)).max() < 1e-5


def test_queries_of_zeros_are_a_fallback_of_their_own(problem):
    asked = problem(center=2.0)
    asked.queries[[0, 7]] = 0
    found = clp(asked)
    np.testing.assert_array_equal(np.flatnonzero(found.fallback["mean"]), [0, 7])
    assert not found.fallback["top-k softmax"].any()
    np.testing.assert_array_equal(found.rows[[0, 7]], [asked.mean] * 2)
    assert np.isfinite(found.rows).all()


def test_all_contributors_give_the_rows_back(problem):
    asked = problem(center=0.2)
    found = clp(asked)
    ids, weights = found.contributors(len(asked.anchors))
    assert (np.diff(np.abs(weights), axis=1) <= 0).all()
    rows = np.einsum("qk,qkd->qd", weights.astype(np.float64), asked.rows[ids])
    np.testing.assert_allclose(rows, found.rows, atol=1e-5)


def test_no_query(mesh, problem):
    found = clp(problem(mesh=mesh, queries=0))
    assert found.rows.shape == (0, 20)
    assert found.facts["condition"].shape == (0,)


def test_only_the_sums_travel_between_devices():
    mesh = make_mesh(2, 2, 2)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    shapes = (64, 6), (128, 6), (128, 10)
    abstract = [jax.ShapeDtypeStruct(shape, np.float32, sharding=rows) for shape in shapes]

    @jax.jit
    def formula(missing, *shared):
        of = unit_sums(*shared)
        return combine(missing, of), row_coherence(missing, of, 128)

    program = formula.lower(*abstract).compile().as_text()
    assert "all-reduce" in program
    assert not re.search("all-gather|all-to-all|collective-permute", program)
