import numpy as np
import pytest

from clp_jax.transfer.methods import METHODS, mean_row, random_rows


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


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("random", "subword")])
def test_the_helpers_scale_changes_nothing_and_the_sources_is_that_of_the_rows(problem, name):
    """Gemma multiplies its embeddings by the root of their width, BLOOM normalises them.

    What a checkpoint holds may thus be of any scale. Powers of two leave float32 its rounding.
    """
    method, asked = METHODS[name].method, problem()
    rows = method(asked).rows
    helper = asked._replace(queries=asked.queries * 32, anchors=asked.anchors * 32)
    np.testing.assert_allclose(method(helper).rows, rows, rtol=1e-4, atol=1e-4)
    source = {key: getattr(asked, key) / 32 for key in ("rows", "mean", "std")}
    np.testing.assert_allclose(
        method(asked._replace(**source)).rows * 32, rows, rtol=1e-4, atol=1e-4
    )
