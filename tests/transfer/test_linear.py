import numpy as np
import pytest

from clp_jax.transfer.methods.linear import (
    STRENGTHS,
    apply_map,
    make_map,
    moments,
    procrustes,
    ridge,
    ridge_inverse,
)

BOTH = pytest.mark.parametrize("method", [ridge, procrustes])


def learnable(problem, noise, mesh=None):
    """Rows that are a linear map of the features, but for noise."""
    asked = problem(mesh=mesh)
    rng = np.random.default_rng(1)
    rows = asked.anchors @ rng.normal(size=(12, 20)) + noise * rng.normal(size=(120, 20)) + 0.3
    return asked._replace(rows=rows.astype(np.float32))


@pytest.mark.parametrize("strength", STRENGTHS[::5])
def test_ridge_of_a_given_strength(problem, oracle, row_error, strength):
    asked = problem()
    of = moments(asked)
    found = np.asarray(apply_map(asked.queries, of, make_map(of, ridge_inverse(of, strength))))
    assert row_error(found, oracle.ridge(asked, strength)).max() < 1e-5


@pytest.mark.parametrize("noise", [0.0, 3.0, 100.0])
def test_ridge_chooses_its_strength_by_held_out_anchors(mesh, problem, oracle, row_error, noise):
    asked = learnable(problem, noise, mesh)
    found = ridge(asked)
    errors = oracle.ridge_errors(asked, STRENGTHS)
    assert found.facts["strength"] == STRENGTHS[np.argmin(errors)]
    assert found.facts["held_out_error"] == pytest.approx(min(errors), rel=1e-4, abs=1e-6)
    expected = oracle.ridge(asked, found.facts["strength"])
    assert row_error(found.rows, expected).max() < 1e-5


def test_the_choice_depends_on_the_noise(problem):
    strengths = [ridge(learnable(problem, noise)).facts["strength"] for noise in (0.0, 3.0, 100.0)]
    assert strengths == sorted(set(strengths))


def test_procrustes_equals_the_oracle(mesh, problem, oracle, row_error):
    asked = learnable(problem, 3.0, mesh)
    assert row_error(procrustes(asked).rows, oracle.procrustes(asked)).max() < 1e-5


@BOTH
def test_a_scaled_rotation_is_found(problem, row_error, method):
    asked = problem()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 12)))
    asked = asked._replace(rows=(2.5 * asked.anchors @ turn.T + 0.3).astype(np.float32))
    found = method(asked).rows
    # The weakest ridge still shrinks by its strength, relative to a feature's mean square.
    limit = 1e-5 if method is procrustes else 2 * STRENGTHS[0]
    assert row_error(found, 2.5 * asked.queries @ turn.T + 0.3).max() < limit


def test_too_few_anchors_to_hold_one_out(problem, oracle, row_error):
    asked = problem(anchors=5)
    found = ridge(asked)
    assert found.facts == {"strength": STRENGTHS[-1]}
    assert row_error(found.rows, oracle.ridge(asked, STRENGTHS[-1])).max() < 1e-5


def test_fewer_anchors_than_dimensions_to_turn(problem, oracle, row_error):
    """The directions that nothing is known of are dropped."""
    asked = problem(anchors=5)
    queries = asked.anchors.mean(axis=0) + np.array([[1, -2, 0.5, 0, 1]]) @ (
        asked.anchors - asked.anchors.mean(axis=0)
    )
    asked = asked._replace(queries=queries.astype(np.float32))
    assert row_error(procrustes(asked).rows, oracle.procrustes(asked)).max() < 1e-4


@BOTH
def test_one_anchor_gives_its_row(problem, method):
    asked = problem(anchors=1)
    np.testing.assert_allclose(method(asked).rows, np.tile(asked.rows, (300, 1)), rtol=1e-6)


@BOTH
def test_queries_of_zeros_get_the_mean_row(problem, method):
    asked = problem()
    asked.queries[[0, 7]] = 0
    found = method(asked)
    np.testing.assert_array_equal(np.flatnonzero(found.fallback["mean"]), [0, 7])
    np.testing.assert_array_equal(found.rows[[0, 7]], [asked.mean] * 2)


@BOTH
def test_all_contributors_and_the_mean_give_the_rows_back(problem, method):
    asked = problem()
    found = method(asked)
    ids, weights = found.contributors(len(asked.anchors))
    assert (np.diff(np.abs(weights), axis=1) <= 0).all()
    rows = np.einsum("qk,qkd->qd", weights.astype(np.float64), asked.rows[ids])
    np.testing.assert_allclose(rows + asked.rows.mean(axis=0), found.rows, atol=1e-5)
