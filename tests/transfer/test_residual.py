import numpy as np
import pytest

from clp_jax.transfer.methods.linear import ridge
from clp_jax.transfer.methods.residual import ridge_residual


@pytest.fixture
def asked(problem, mesh):
    """A problem with frequencies, a row that was never trained and a query without features."""
    asked = problem(mesh=mesh)
    asked.rows[9] *= 20
    asked.queries[[0, 7]] = 0
    frequencies = np.random.default_rng(2).uniform(0.01, 1, 120).astype(np.float32)
    return asked._replace(frequencies=frequencies)


@pytest.mark.parametrize("constants", [{}, {"neighbours": 3, "temperature": 0.5}])
def test_equals_the_oracle(asked, oracle, row_error, constants):
    found = ridge_residual(asked, **constants)
    expected = oracle.ridge_residual(asked, found.facts["strength"], **constants)
    expected[[0, 7]] = asked.mean
    assert row_error(found.rows, expected).max() < 1e-5
    np.testing.assert_array_equal(np.flatnonzero(found.fallback["mean"]), [0, 7])
    assert found.facts == ridge(asked).facts


def test_all_contributors_give_the_rows_back(problem):
    asked = problem()
    found = ridge_residual(asked)
    ids, weights = found.contributors(120)
    assert (np.diff(np.abs(weights), axis=1) <= 0).all()
    rows = np.einsum("qk,qkd->qd", weights.astype(np.float64), asked.rows[ids])
    np.testing.assert_allclose(rows, found.rows, atol=1e-5)


def test_contributors_are_anchors_that_count(asked):
    ids, weights = ridge_residual(asked).contributors(5)
    assert 9 not in ids
    assert np.isfinite(weights).all()


def test_an_anchor_that_is_asked_for_alone_keeps_its_row(problem):
    """Its residual is all that the nearest anchor, itself, has."""
    asked = problem()
    own = asked._replace(queries=asked.anchors)
    np.testing.assert_allclose(ridge_residual(own, neighbours=1).rows, asked.rows, atol=1e-5)
