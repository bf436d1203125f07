import numpy as np
import pytest

from clp_jax.evaluate.tasks.resample import FEWER, RESAMPLES
from clp_jax.evaluate.tasks.scores import (
    Answers,
    Guessing,
    Score,
    read_values,
    score_classes,
    score_metric,
    written,
)


def mean(values):
    return sum(values) / len(values)


def macro_f1(pairs):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    return f1_score(*zip(*pairs, strict=True), average="macro")


def classification(gold, classes):
    right = np.eye(classes, dtype=bool)[np.asarray(gold)]
    return Answers(np.full(len(gold), classes), right, [f"class {i}" for i in range(classes)])


def score(values, aggregate=mean, clusters=None, **options):
    clusters = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    return score_metric(values, aggregate, cluster_of=clusters, **options)


def test_the_interval_is_that_of_the_binomial():
    found = score([1.0] * 800 + [0.0] * 200)
    deviation = (0.8 * 0.2 / 1000) ** 0.5
    assert found.score == pytest.approx(0.8)
    assert found.stderr == pytest.approx(deviation, rel=0.1)
    assert found.low == pytest.approx(0.8 - 1.96 * deviation, abs=5e-3)
    assert found.high == pytest.approx(0.8 + 1.96 * deviation, abs=5e-3)
    assert found.resamples == RESAMPLES


def test_questions_on_one_passage_are_drawn_together():
    """Ten questions a passage, all right or all wrong, are worth one question a passage."""
    values = np.repeat([1.0] * 60 + [0.0] * 40, 10).tolist()
    passages = np.repeat(np.arange(100), 10).tolist()
    assert score(values, clusters=passages).stderr == pytest.approx(0.049, rel=0.1)
    assert score(values).stderr == pytest.approx(0.049 / 10**0.5, rel=0.1)


def test_any_aggregate_is_resampled_and_agrees_with_the_mean_of_numbers():
    values = np.random.default_rng(1).random(300).tolist()

    def other(values):
        return mean(values)

    fast, slow = score(values), score(values, other)
    assert slow.stderr == pytest.approx(fast.stderr, rel=0.3)
    assert (slow.resamples, slow.values) == (FEWER, "")


def test_a_function_with_the_name_of_another_is_called():
    def mean(values):
        return max(values)

    assert score([0.0, 1.0, 3.0], mean).aggregate is None


def test_chance_of_unequal_choices_and_of_several_right_ones():
    right = np.zeros((3, 5), bool)
    right[[0, 1, 2, 2], [0, 1, 2, 3]] = True
    found = score([1.0, 0.0, 1.0], answers=Answers(np.array([2, 4, 5]), right)).guessing
    assert found.random == pytest.approx((1 / 2 + 1 / 4 + 2 / 5) / 3)
    assert found.majority is None
    two = 1 / 2 * 1 / 4 * 3 / 5 + 1 / 2 * 3 / 4 * 2 / 5 + 1 / 2 * 1 / 4 * 2 / 5
    assert found.p == pytest.approx(2 * (two + 1 / 2 * 1 / 4 * 2 / 5))


def test_baselines_of_classification_by_hand():
    # 60 of class 0 and 40 of class 1, all answers but 10 right.
    gold = np.array([0] * 60 + [1] * 40)
    guess = gold.copy()
    guess[55:65] = 1 - gold[55:65]
    answers = classification(gold, 2)
    accuracy = score(
        (gold == guess).astype(float).tolist(), answers=answers, predicted=guess
    ).guessing
    assert (accuracy.random, accuracy.majority) == (pytest.approx(0.5), pytest.approx(0.6))
    assert accuracy.shuffled == pytest.approx(0.6**2 + 0.4**2)
    assert accuracy.p < 1e-3
    f1 = score([*zip(gold.tolist(), guess.tolist(), strict=True)], macro_f1, answers=answers)
    assert f1.guessing.majority == pytest.approx((120 / 160 + 0) / 2)
    assert f1.guessing.random == pytest.approx((60 / 110 + 40 / 90) / 2)
    assert f1.guessing.shuffled == pytest.approx((0.6 + 0.4) / 2)
    assert f1.verdict == "better than guessing"


def test_what_is_no_answer_has_no_baselines():
    assert score([3.5, 2.0]).verdict == ""
    answers = classification([0, 1], 2)
    assert score([0.3, 0.9], answers=answers).guessing == Guessing()  # a Brier score
    assert score([(-3.0, 4, 5)], lambda values: 1.0, answers=answers).guessing == Guessing()


@pytest.mark.parametrize(
    ("low", "high", "higher", "p", "verdict"),
    [
        (0.61, 0.8, True, 0.01, "better than guessing"),
        (0.61, 0.8, True, 0.2, "no better than guessing"),  # One of many tasks.
        (0.55, 0.8, True, 0.01, "no better than guessing"),  # Better than chance only.
        (0.2, 0.4, True, 0.01, "worse than guessing"),
        (0.2, 0.4, True, 1.0, "no better than guessing"),
        (0.2, 0.4, False, None, "better than guessing"),
    ],
)
def test_the_verdict_needs_the_whole_interval(low, high, higher, p, verdict):
    found = Score(0.5, 0.1, low, high, Guessing(0.5, 0.6), higher, p_corrected=p)
    assert found.verdict == verdict
    assert found.to_dict()["verdict"] == verdict


def test_the_f1_of_each_class_has_an_interval():
    pairs = np.array([[0, 0]] * 50 + [[0, 1]] * 10 + [[1, 1]] * 30 + [[1, 0]] * 10)
    found = score_classes(pairs, ["no", "yes"], np.arange(100))
    assert found["yes"]["examples"] == found["yes"]["predicted"] == 40
    assert found["yes"]["f1"] == pytest.approx(0.75)
    assert 0.6 < found["yes"]["low"] < 0.75 < found["yes"]["high"] < 0.87


def test_values_are_written_on_a_line():
    values = [1.0, 0.0, -3.125]
    assert written(values) == "1 0 -3.125"
    assert read_values(written(values)) == values
    assert read_values(written([(0, 2), (1, 1)])) == [(0, 2), (1, 1)]
