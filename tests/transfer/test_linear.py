import numpy as np
import pytest

from clp_jax.transfer.methods.linear import (
    STRENGTHS,
    flor,
    procrustes,
    ridge,
    sava,
    trained_anchors,
)

EACH = pytest.mark.parametrize("method", [ridge, sava, flor, procrustes])


def learnable(problem, noise, mesh=None):
    """Rows that are a linear map of the features, but for noise."""
    asked = problem(mesh=mesh)
    rng = np.random.default_rng(1)
    rows = asked.anchors @ rng.normal(size=(12, 20)) + noise * rng.normal(size=(120, 20)) + 0.3
    return asked._replace(rows=rows.astype(np.float32))


def with_text(asked):
    """Frequencies that differ by a factor of a thousand, and two rows that were never trained."""
    shares = np.random.default_rng(2).uniform(-3, 0, len(asked.anchors))
    asked.anchors[4] *= 1e-3
    asked.rows[9] *= 20
    return asked._replace(frequencies=(10**shares).astype(np.float32))


@pytest.mark.parametrize("strength", STRENGTHS[::5])
def test_ridge_of_a_given_strength(mesh, problem, oracle, row_error, strength):
    asked = with_text(problem(mesh=mesh))
    found = ridge(asked, strength=strength)
    assert found.facts == {"strength": strength, "left_out": 2}
    assert row_error(found.rows, oracle.ridge(asked, strength)).max() < 1e-5


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("noise", [0.0, 3.0, 100.0])
def test_ridge_chooses_its_strength_by_held_out_anchors(
    mesh, problem, oracle, row_error, noise, text
):
    asked = learnable(problem, noise, mesh)
    asked = with_text(asked) if text else asked
    found = ridge(asked)
    strength, error = oracle.ridge_choice(asked, STRENGTHS)
    assert found.facts["strength"] == strength
    assert found.facts["held_out_error"] == pytest.approx(error, rel=1e-4, abs=1e-6)
    assert row_error(found.rows, oracle.ridge(asked, strength)).max() < 1e-5


def test_an_exponent_of_zero_weighs_all_anchors_equally(problem):
    asked = with_text(problem())
    equal = ridge(asked._replace(frequencies=None), strength=0.1).rows
    np.testing.assert_allclose(
        ridge(asked, strength=0.1, count_exponent=0.0).rows, equal, atol=1e-5
    )
    assert not np.allclose(ridge(asked, strength=0.1).rows, equal, atol=0.01)


def test_where_every_norm_is_unusual_all_anchors_count(problem):
    asked = problem(anchors=2)
    asked.anchors[0] *= 100
    asked.rows[1] *= 100
    assert trained_anchors(asked).tolist() == [0, 1]


@pytest.mark.parametrize("anchors", [120, 5], ids=["many", "too few"])
@pytest.mark.parametrize("method", [sava, flor])
def test_plain_least_squares(mesh, problem, oracle, row_error, method, anchors):
    asked = problem(anchors=anchors, mesh=mesh)
    expected = getattr(oracle, method.__name__)(asked)
    if anchors == 120:
        assert row_error(method(asked).rows, expected).max() < 1e-4
    else:  # Of the maps that fit, the smallest; the oracle's constant is part of what is small.
        known = method(asked._replace(queries=asked.anchors)).rows
        np.testing.assert_allclose(known, asked.rows, atol=1e-4)


def test_a_strength_that_rounding_hides_is_least_squares(problem):
    """Fewer anchors than features: of the maps that fit, the smallest."""
    asked = problem(anchors=5)
    np.testing.assert_allclose(ridge(asked, strength=1e-9).rows, sava(asked).rows, atol=1e-5)


def test_the_choice_depends_on_the_noise(problem):
    strengths = [ridge(learnable(problem, noise)).facts["strength"] for noise in (0.0, 10.0, 20.0)]
    assert strengths == sorted(set(strengths))


def test_procrustes_equals_the_oracle(mesh, problem, oracle, row_error):
    asked = learnable(problem, 3.0, mesh)
    assert row_error(procrustes(asked).rows, oracle.procrustes(asked)).max() < 1e-5


@pytest.mark.parametrize("method", [ridge, sava, procrustes])
def test_a_scaled_rotation_is_found(problem, row_error, method):
    asked = problem()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 12)))
    asked = asked._replace(rows=(2.5 * asked.anchors @ turn.T + 0.3).astype(np.float32))
    found = method(asked).rows
    # The weakest ridge still shrinks by its strength, relative to a feature's mean square.
    limit = 2 * STRENGTHS[0] if method is ridge else 1e-5
    assert row_error(found, 2.5 * asked.queries @ turn.T + 0.3).max() < limit


def test_too_few_anchors_to_hold_one_out(problem, oracle, row_error):
    asked = problem(anchors=5)
    found = ridge(asked)
    assert found.facts == {"strength": STRENGTHS[-1], "left_out": 0}
    assert row_error(found.rows, oracle.ridge(asked, STRENGTHS[-1])).max() < 1e-5


def test_fewer_anchors_than_dimensions_to_turn(problem, oracle, row_error):
    """The directions that nothing is known of are dropped."""
    asked = problem(anchors=5)
    queries = asked.anchors.mean(axis=0) + np.array([[1, -2, 0.5, 0, 1]]) @ (
        asked.anchors - asked.anchors.mean(axis=0)
    )
    asked = asked._replace(queries=queries.astype(np.float32))
    assert row_error(procrustes(asked).rows, oracle.procrustes(asked)).max() < 1e-4


@pytest.mark.parametrize("method", [ridge, sava, procrustes])
def test_one_anchor_gives_its_row(problem, method):
    asked = problem(anchors=1)
    np.testing.assert_allclose(method(asked).rows, np.tile(asked.rows, (300, 1)), rtol=1e-6)


@EACH
def test_queries_of_zeros_get_the_mean_row(problem, method):
    asked = problem()
    asked.queries[[0, 7]] = 0
    found = method(asked)
    np.testing.assert_array_equal(np.flatnonzero(found.fallback["mean"]), [0, 7])
    np.testing.assert_array_equal(found.rows[[0, 7]], [asked.mean] * 2)


@EACH
def test_all_contributors_and_the_mean_give_the_rows_back(problem, method):
    asked = problem()
    found = method(asked)
    ids, weights = found.contributors(len(asked.anchors))
    assert (np.diff(np.abs(weights), axis=1) <= 0).all()
    rows = np.einsum("qk,qkd->qd", weights.astype(np.float64), asked.rows[ids])
    base = 0 if method is flor else asked.rows.mean(axis=0)
    np.testing.assert_allclose(rows + base, found.rows, atol=1e-5)
