import numpy as np
import pytest

from clp_jax.evaluate.tasks.scores import Answers, Score, score_metric


def mean(values):
    return sum(values) / len(values)


def macro_f1(pairs):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    return f1_score(*zip(*pairs, strict=True), average="macro")


def classification(gold, classes):
    count = len(gold)
    return Answers(np.full(count, classes), np.asarray(gold), np.ones(count, int), same=True)


def score(values, aggregate=mean, *, clusters=None, answers=None, higher_is_better=True):
    return score_metric(
        values,
        aggregate,
        clusters=range(len(values)) if clusters is None else clusters,
        answers=answers,
        higher_is_better=higher_is_better,
    )


def test_the_interval_is_that_of_the_binomial():
    found = score([1.0] * 800 + [0.0] * 200)
    deviation = (0.8 * 0.2 / 1000) ** 0.5
    assert found.score == pytest.approx(0.8)
    assert found.stderr == pytest.approx(deviation, rel=0.1)
    assert found.low == pytest.approx(0.8 - 1.96 * deviation, abs=5e-3)
    assert found.high == pytest.approx(0.8 + 1.96 * deviation, abs=5e-3)


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
    assert slow.stderr == pytest.approx(fast.stderr, rel=0.1)
    assert slow.low == pytest.approx(fast.low, abs=5e-3)


def test_chance_of_unequal_choices_and_of_several_right_ones():
    answers = Answers(np.array([2, 4, 5]), np.array([0, 1, 2]), np.array([1, 1, 2]), same=False)
    found = score([1.0, 0.0, 1.0], answers=answers)
    assert found.random == pytest.approx((1 / 2 + 1 / 4 + 2 / 5) / 3)
    assert found.majority is None


def test_baselines_of_classification_by_hand():
    # 60 of class 0 and 40 of class 1.  Uniform guessing: F1 = 2*30/(60+50) and 2*20/(40+50).
    gold = [0] * 60 + [1] * 40
    answers = classification(gold, 2)
    accuracy = score([1.0] * 70 + [0.0] * 30, answers=answers)
    assert (accuracy.random, accuracy.majority) == (pytest.approx(0.5), pytest.approx(0.6))
    f1 = score([(label, 0) for label in gold], macro_f1, answers=answers)
    assert f1.majority == pytest.approx((120 / 160 + 0) / 2)
    assert f1.random == pytest.approx((60 / 110 + 40 / 90) / 2, abs=0.015)


def test_what_is_no_answer_has_no_baselines():
    assert score([3.5, 2.0]).verdict == ""
    answers = classification([0, 1], 2)
    assert score([0.3, 0.9], answers=answers).random is None  # a Brier score
    assert score([(-3.0, 4, 5)], lambda values: 1.0, answers=answers).random is None


@pytest.mark.parametrize(
    ("low", "high", "higher", "verdict"),
    [
        (0.61, 0.8, True, "better than guessing"),
        (0.55, 0.8, True, "no better than guessing"),  # Better than chance only.
        (0.2, 0.4, True, "worse than guessing"),
        (0.2, 0.4, False, "better than guessing"),
    ],
)
def test_the_verdict_needs_the_whole_interval(low, high, higher, verdict):
    found = Score(0.5, 0.1, low, high, 0.5, 0.6, higher)
    assert found.verdict == verdict
    assert found.to_dict()["verdict"] == verdict
