import numpy as np

from clp_jax.transfer.methods import mean_row, random_rows


def test_random_rows_have_the_sources_mean_and_deviation(problem):
    asked = problem(queries=40_000, anchors=5)
    found = random_rows(asked).rows
    assert found.dtype == np.float32
    # Five standard errors of the mean and of the deviation of a normal sample.
    assert (np.abs(found.mean(axis=0) - asked.mean) < 5 * asked.std / 200).all()
    assert (np.abs(found.std(axis=0) - asked.std) < 5 * asked.std / np.sqrt(2 * 40_000)).all()


def test_random_rows_follow_the_seed(problem):
    asked = problem()
    np.testing.assert_array_equal(random_rows(asked).rows, random_rows(asked).rows)
    other = random_rows(asked._replace(seed=4)).rows
    assert not np.isclose(random_rows(asked).rows, other).all(axis=1).any()


def test_the_mean_row(problem, oracle):
    asked = problem()
    np.testing.assert_array_equal(mean_row(asked).rows, oracle.mean(asked))
