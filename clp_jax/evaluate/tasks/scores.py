"""A task's scores with their intervals, alongside those of guessing."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 1000
"""Bootstrap resamples of the examples."""

GUESSES = 100
"""Runs of uniform guessing, for metrics that are no means."""

Aggregate = Callable[[Sequence[Any]], float]
"""The score of a metric, from its values for all examples."""


@dataclass(frozen=True)
class Answers:
    """The choices of the examples of a multiple-choice task.

    Attributes:
        counts: choices of each example.
        gold: the right choice of each; the first of several.
        right: how many choices of each are right.
        same: whether all examples have the same choices, as in classification.
    """

    counts: Int[np.ndarray, " example"]
    gold: Int[np.ndarray, " example"]
    right: Int[np.ndarray, " example"]
    same: bool


@dataclass(frozen=True)
class Score:
    """One metric of one task.

    Attributes:
        score: of the model.
        stderr: its standard deviation over bootstrap resamples.
        low: lower end of the 95% bootstrap interval.
        high: its upper end.
        random: the score of uniform guessing; None if the metric has none.
        majority: the score of always giving the most frequent answer; None if the answers differ
            between examples.
        higher_is_better: whether a high score is a good one.
    """

    score: float
    stderr: float
    low: float
    high: float
    random: float | None
    majority: float | None
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """How the whole interval compares with both baselines, in words."""
        known = [value for value in (self.random, self.majority) if value is not None]
        if not known:
            return ""
        sign = 1 if self.higher_is_better else -1
        low, high = sorted((sign * self.low, sign * self.high))
        best, least = max(sign * value for value in known), min(sign * value for value in known)
        if low > best:
            return "better than guessing"
        return "worse than guessing" if high < least else "no better than guessing"

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"verdict": self.verdict}


def score_metric(
    values: Sequence[Any],
    aggregate: Aggregate,
    *,
    clusters: Sequence[Any],
    answers: Answers | None,
    higher_is_better: bool,
) -> Score:
    """Score one metric.

    The bootstrap (`RESAMPLES`, fixed seed) draws clusters, such as all questions on one passage.
    Guessing is scored where the values are means of right and wrong, or pairs of gold and predicted
    choices.

    Args:
        values: of each example: a number, or what ``aggregate`` takes.
        aggregate: the score of such values.
        clusters: what each example belongs to.
        answers: the choices, if the task has any.
        higher_is_better: whether a high score is a good one.
    """
    _, cluster_of = np.unique(np.asarray(clusters, str), return_inverse=True)
    draws = _resample(values, aggregate, cluster_of)
    low, high = np.quantile(draws, (0.025, 0.975))
    random, majority = _guessing(values, aggregate, answers)
    score = float(aggregate(values))
    return Score(
        score, float(draws.std()), float(low), float(high), random, majority, higher_is_better
    )


def _resample(
    values: Sequence[Any], aggregate: Aggregate, cluster_of: Int[np.ndarray, " example"]
) -> Float[np.ndarray, " draw"]:
    rng, count = np.random.default_rng(0), int(cluster_of.max()) + 1
    if is_mean(values, aggregate):
        sums = np.bincount(cluster_of, np.asarray(values, float), count)
        sizes = np.bincount(cluster_of, minlength=count)
        draws = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        return (draws @ sums) / (draws @ sizes)
    members = [np.flatnonzero(cluster_of == cluster) for cluster in range(count)]
    drawn = (rng.integers(count, size=count) for _ in range(RESAMPLES))
    chosen = (np.concatenate([members[cluster] for cluster in draw]) for draw in drawn)
    return np.array([aggregate([values[i] for i in ids]) for ids in chosen], float)


def is_mean(values: Sequence[Any], aggregate: Aggregate) -> bool:
    """Whether the score is the mean of the values."""
    return getattr(aggregate, "__name__", "") == "mean" and not any(
        isinstance(value, tuple | list) for value in values
    )


def _guessing(
    values: Sequence[Any], aggregate: Aggregate, answers: Answers | None
) -> tuple[float | None, float | None]:
    """The scores of uniform guessing and of the most frequent answer."""
    if answers is None:
        return None, None
    usual = int(np.bincount(answers.gold).argmax())
    if is_mean(values, aggregate):
        if not set(map(float, values)) <= {0.0, 1.0}:
            return None, None
        random = float((answers.right / answers.counts).mean())
        return random, float((answers.gold == usual).mean()) if answers.same else None
    if not all(isinstance(value, tuple | list) and len(value) == 2 for value in values):
        return None, None
    gold = [pair[0] for pair in values]
    rng = np.random.default_rng(0)
    guesses = (rng.integers(answers.counts).tolist() for _ in range(GUESSES))
    scores = [aggregate([*zip(gold, guess, strict=True)]) for guess in guesses]
    constant = [(value, usual) for value in gold]
    return float(np.mean(scores)), float(aggregate(constant)) if answers.same else None
