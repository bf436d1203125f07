import numpy as np
import pytest

from clp_jax.evaluate.tasks.scores import (
    accuracy,
    confusion_matrix,
    macro_f1,
    score_with_baselines,
)


def test_accuracy_and_macro_f1_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for classes in (2, 3, 5):
        gold, predicted = rng.integers(classes, size=(2, 40))
        confusion = confusion_matrix(gold.tolist(), predicted.tolist(), classes)
        np.testing.assert_array_equal(confusion, metrics.confusion_matrix(gold, predicted))
        assert accuracy(confusion) == pytest.approx(metrics.accuracy_score(gold, predicted))
        expected = metrics.f1_score(gold, predicted, average="macro")
        assert macro_f1(confusion) == pytest.approx(expected, abs=1e-12)


def test_a_class_that_does_not_occur_does_not_count():
    assert macro_f1(confusion_matrix([0, 0], [0, 0], classes=2)) == 1.0


def test_baselines_by_hand():
    # 60 of class 0 and 40 of class 1.  Uniform guessing: F1 = 2*30/(60+50) and 2*20/(40+50).
    confusion = np.array([[50, 10], [20, 20]])
    by_accuracy = score_with_baselines(confusion, accuracy)
    assert by_accuracy.score == pytest.approx(0.7)
    assert by_accuracy.random == pytest.approx(0.5)
    assert by_accuracy.majority == pytest.approx(0.6)
    by_f1 = score_with_baselines(confusion, macro_f1)
    assert by_f1.score == pytest.approx((100 / 130 + 40 / 70) / 2)
    assert by_f1.random == pytest.approx((60 / 110 + 40 / 90) / 2)
    assert by_f1.majority == pytest.approx((120 / 160 + 0) / 2)


def test_uniform_guessing_scores_the_random_baseline():
    rng = np.random.default_rng(0)
    gold = [0] * 700 + [1] * 200 + [2] * 100
    guesses = [
        macro_f1(confusion_matrix(gold, rng.integers(3, size=len(gold)).tolist(), 3))
        for _ in range(400)
    ]
    random = score_with_baselines(confusion_matrix(gold, gold, 3), macro_f1).random
    assert np.mean(guesses) == pytest.approx(random, abs=2e-3)


def test_the_interval_is_that_of_the_binomial():
    score = score_with_baselines(np.array([[400, 100], [100, 400]]), accuracy)
    deviation = (0.8 * 0.2 / 1000) ** 0.5
    assert score.stderr == pytest.approx(deviation, rel=0.03)
    assert score.low == pytest.approx(0.8 - 1.96 * deviation, abs=2e-3)
    assert score.high == pytest.approx(0.8 + 1.96 * deviation, abs=2e-3)


def test_beating_the_baselines_needs_the_whole_interval():
    assert score_with_baselines(np.array([[80, 20], [20, 80]]), accuracy).beats_baselines
    assert not score_with_baselines(np.array([[52, 48], [48, 52]]), accuracy).beats_baselines
    # Better than guessing, but no better than always saying the frequent class.
    assert not score_with_baselines(np.array([[90, 0], [10, 0]]), accuracy).beats_baselines
