import math

import numpy as np
import pytest

pytest.importorskip("lm_eval")
from lm_eval.api import metrics as api

from clp_jax.evaluate.tasks.own.data import macro_f1
from clp_jax.evaluate.tasks.resample import (
    RESAMPLES,
    resample,
    resample_whole,
    statistics_of,
)

RNG = np.random.default_rng(1)
NUMBERS = RNG.normal(-3, 1, 200).tolist()
WEIGHTED = [*zip(NUMBERS, RNG.integers(1, 9, 200).tolist(), strict=True)]
PAIRS = [*map(tuple, RNG.integers(2, size=(200, 2)).tolist())]


@pytest.mark.parametrize(
    ("aggregate", "values"),
    [
        (api.mean, NUMBERS),
        (api.perplexity, NUMBERS),
        (api.weighted_perplexity, WEIGHTED),
        (api.bits_per_byte, WEIGHTED),
        (api.f1_score, PAIRS),
        (api.matthews_corrcoef, PAIRS),
        (macro_f1, PAIRS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_sums_make_the_scores_of_the_harness_and_their_bootstrap(aggregate, values):
    found = statistics_of(values, aggregate.__name__)
    assert found.score(found.rows.sum(0, keepdims=True))[0] == pytest.approx(aggregate(values))
    alone = np.arange(len(values))
    fast = found.score(resample(found.rows, alone))
    assert fast.shape == (RESAMPLES,)
    slow = resample_whole(values, aggregate, alone)
    assert fast.std() == pytest.approx(slow.std(), rel=0.3)
    assert fast.mean() == pytest.approx(slow.mean(), abs=slow.std() / 2)


@pytest.mark.parametrize(
    ("values", "aggregate"),
    [
        ([("a", "b")], "mean"),
        ([1.0, 2.0], "median"),
        ([(-100, 1), (0, 1)], "macro_f1"),
        ([(0, 1), (40, 1)], "macro_f1"),
        ([(0.5, 1)], "macro_f1"),
    ],
)
def test_other_values_have_no_sums(values, aggregate):
    assert statistics_of(values, aggregate) is None


def test_whole_clusters_are_drawn():
    rows = np.array([[1.0, 1], [1, 1], [0, 1], [0, 1]])
    draws = resample(rows, np.array([0, 0, 1, 1]))
    assert set(draws[:, 0].tolist()) == {0, 2, 4}
    assert np.mean(draws[:, 0] == 2) == pytest.approx(0.5, abs=0.05)


def test_a_bootstrap_of_floats_has_the_deviation_of_the_mean():
    values = np.array(NUMBERS)
    found = statistics_of(NUMBERS, "mean")
    draws = found.score(resample(found.rows, np.arange(200)))
    assert draws.std() == pytest.approx(values.std() / math.sqrt(200), rel=0.08)
