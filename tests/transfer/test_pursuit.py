import numpy as np
import pytest

from clp_jax.transfer.methods.pursuit import omp

ATOMS = 8


@pytest.mark.parametrize("center", [0.0, 1.0])
def test_equals_the_oracle(mesh, problem, oracle, row_error, center):
    asked = problem(mesh=mesh, center=center)
    found = omp(asked, atoms=ATOMS)
    assert found.rows.dtype == np.float32
    assert row_error(found.rows, oracle.omp(asked, ATOMS)).max() < 1e-5
    assert not found.fallback["mean"].any()


def test_fewer_anchors_than_atoms(problem, oracle, row_error):
    asked = problem(anchors=ATOMS - 4)
    assert row_error(omp(asked, atoms=ATOMS).rows, oracle.omp(asked, ATOMS)).max() < 1e-5


def test_few_atoms_that_made_a_query_are_found(problem):
    """Two anchors nearly at right angles to all others, so that no other comes first."""
    asked = problem(center=0.0)
    asked.anchors[:, :2] *= 0.01
    asked.anchors[[3, 9], :] = 0
    asked.anchors[3, 0], asked.anchors[9, 1] = 2, 1
    asked.queries[:] = 0
    asked.queries[:, 0], asked.queries[:, 1] = 3, -1
    found = omp(asked, atoms=ATOMS)
    np.testing.assert_allclose(found.rows[0], 1.5 * asked.rows[3] - asked.rows[9], atol=1e-5)
    ids, weights = found.contributors(2)
    assert ids[0].tolist() == [3, 9]
    np.testing.assert_allclose(weights[0], [1.5, -1], atol=1e-5)


def test_of_copies_of_an_anchor_one_is_used(problem):
    asked = problem()
    asked.anchors[60:] = asked.anchors[:60]
    ids, weights = omp(asked, atoms=ATOMS).contributors(ATOMS)
    assert np.isfinite(weights).all()
    for row, shares in zip(ids, weights, strict=True):
        used = row[shares != 0] % 60
        assert len(set(used)) == len(used)


def test_queries_of_zeros_get_the_mean_row(problem):
    asked = problem()
    asked.queries[[0, 7]] = 0
    found = omp(asked, atoms=ATOMS)
    np.testing.assert_array_equal(np.flatnonzero(found.fallback["mean"]), [0, 7])
    np.testing.assert_array_equal(found.rows[[0, 7]], [asked.mean] * 2)


def test_contributors_give_the_rows_back(problem):
    asked = problem()
    found = omp(asked, atoms=ATOMS)
    ids, weights = found.contributors(ATOMS)
    assert (np.diff(np.abs(weights), axis=1) <= 0).all()
    rows = np.einsum("qk,qkd->qd", weights.astype(np.float64), asked.rows[ids])
    np.testing.assert_allclose(rows, found.rows, atol=1e-5)
