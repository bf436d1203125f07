"""A task's scores with their intervals, alongside those of guessing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from clp_jax.evaluate.tasks.confusion import class_f1, confusion
from clp_jax.evaluate.tasks.resample import (
    FEWER,
    RESAMPLES,
    TABLES,
    Aggregate,
    of_pairs,
    resample,
    resample_whole,
    statistics_of,
)
from clp_jax.evaluate.tasks.significance import LEVEL, guessing_p, shuffling_p


@dataclass(frozen=True)
class Answers:
    """The choices of the examples of a multiple-choice task.

    Attributes:
        counts: choices of each example.
        right: which of them are right.
        classes: names of the choices where all examples have the same ones, as in classification.
    """

    counts: Int[np.ndarray, " example"]
    right: Bool[np.ndarray, "example choice"]
    classes: Sequence[str] | None = None

    def pairs(self, predicted: Int[np.ndarray, " example"]) -> Int[np.ndarray, "example 2"] | None:
        """The right and the predicted class of each example; None without classes."""
        if self.classes is None or (self.right.sum(1) > 1).any():
            return None
        return np.stack([self.right.argmax(1), predicted], 1)

    def correct(self, predicted: Int[np.ndarray, " example"]) -> list[float]:
        """1 for each example whose predicted choice is right, 0 for the others."""
        return self.right[np.arange(len(predicted)), predicted].astype(float).tolist()


@dataclass(frozen=True)
class Guessing:
    """What answers score that look at no question.

    Attributes:
        random: the score of uniform guessing.
        majority: that of always giving the most frequent answer.
        shuffled: that of the model's own answers, dealt to the questions at random.
        p: how often guessing scores as unusually as the model, two-sided: with classes its own
            answers, shuffled; otherwise uniform guessing, exactly.
    """

    random: float | None = None
    majority: float | None = None
    shuffled: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Score:
    """One metric of one task.

    Attributes:
        score: of the model.
        stderr: its standard deviation over bootstrap resamples.
        low: lower end of the 95% bootstrap interval.
        high: its upper end.
        guessing: what answers score that look at no question.
        higher_is_better: whether a high score is a good one.
        resamples: how many there are.
        aggregate: the name of the score's function in `resample`, if it is there.
        values: of the examples in their order, separated by spaces; a value of two numbers has a
            comma between them. Empty if the function is unknown.
        p_corrected: the p of guessing, corrected for the number of tasks (`significance.holm`).
    """

    score: float
    stderr: float
    low: float
    high: float
    guessing: Guessing = Guessing()
    higher_is_better: bool = True
    resamples: int = RESAMPLES
    aggregate: str | None = None
    values: str = ""
    p_corrected: float | None = None

    @property
    def verdict(self) -> str:
        """How the whole interval compares with all guessing, in words, if p is small enough."""
        guesses = (self.guessing.random, self.guessing.majority, self.guessing.shuffled)
        known = [value for value in guesses if value is not None]
        if not known:
            return ""
        sign = 1 if self.higher_is_better else -1
        low, high = sorted((sign * self.low, sign * self.high))
        best, least = max(sign * value for value in known), min(sign * value for value in known)
        if self.p_corrected is None or self.p_corrected < LEVEL:
            if low > best:
                return "better than guessing"
            if high < least:
                return "worse than guessing"
        return "no better than guessing"

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; the fields of ``guessing`` are among the others."""
        fields = asdict(self)
        values = {"aggregate": fields.pop("aggregate"), "values": fields.pop("values")}
        guessing = fields.pop("guessing")
        return fields | guessing | {"verdict": self.verdict} | values


def score_metric(
    values: Sequence[Any],
    aggregate: Aggregate,
    *,
    cluster_of: Int[np.ndarray, " example"],
    answers: Answers | None = None,
    predicted: Int[np.ndarray, " example"] | None = None,
    higher_is_better: bool = True,
) -> Score:
    """Score one metric.

    The bootstrap (fixed seed) draws clusters, such as all questions on one passage. Guessing is
    scored where the values are right and wrong, or pairs of right and predicted class.

    Args:
        values: of each example: a number, or what ``aggregate`` takes.
        aggregate: the score of such values.
        cluster_of: the number of the cluster of each example, from 0.
        answers: the choices, if the task has any.
        predicted: the choices that the values are made of, if known.
        higher_is_better: whether a high score is a good one.
    """
    score, name = float(aggregate(values)), getattr(aggregate, "__name__", "")
    statistics = statistics_of(values, name)
    # A function of the same name may be another one.
    if statistics is not None and not np.isclose(
        statistics.score(statistics.rows.sum(0, keepdims=True))[0],
        score,
        rtol=1e-6,
        atol=1e-9,
        equal_nan=True,
    ):
        statistics = None
    if statistics is None:
        draws = resample_whole(values, aggregate, cluster_of)
        guessing = Guessing()
    else:
        draws = statistics.score(resample(statistics.rows, cluster_of))
        guessing = _guessing(values, name, answers, predicted)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Score(
        score,
        float(draws.std()),
        float(low),
        float(high),
        guessing,
        higher_is_better,
        FEWER if statistics is None else RESAMPLES,
        None if statistics is None else name,
        "" if statistics is None else written(values),
    )


def score_classes(
    pairs: Int[np.ndarray, "example 2"],
    classes: Sequence[str],
    cluster_of: Int[np.ndarray, " example"],
) -> dict[str, dict[str, Any]]:
    """For each class how often it is right and predicted, and its F1 with a bootstrap interval."""
    count = len(classes)
    table = confusion(pairs, count)
    rows = of_pairs(pairs, count, "accuracy").rows
    draws = class_f1(resample(rows, cluster_of).reshape(-1, count, count))
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    columns = table.sum(1), table.sum(0), class_f1(table[None])[0], low, high
    names = ("examples", "predicted", "f1", "low", "high")
    return {
        name: dict(zip(names, (column[i].item() for column in columns), strict=True))
        for i, name in enumerate(classes)
    }


def written(values: Sequence[Any]) -> str:
    """Values of examples as one line, see `Score.values`."""
    pairs = [value if isinstance(value, tuple | list) else (value,) for value in values]
    return " ".join(",".join(f"{number:.10g}" for number in pair) for pair in pairs)


def read_values(line: str) -> list[float | tuple[float, ...]]:
    """The values that `written` wrote."""
    pairs = [tuple(map(float, value.split(","))) for value in line.split()]
    return [pair[0] if len(pair) == 1 else pair for pair in pairs]


def _guessing(
    values: Sequence[Any],
    aggregate: str,
    answers: Answers | None,
    predicted: Int[np.ndarray, " example"] | None,
) -> Guessing:
    if answers is None:
        return Guessing()
    if aggregate in TABLES:
        predicted = np.array([pair[1] for pair in values], int)
        pairs = answers.pairs(predicted)
        if pairs is None or pairs.tolist() != [[*pair] for pair in values]:
            return Guessing()
        return _guessing_classes(pairs, answers, aggregate)
    if aggregate != "mean" or not set(map(float, values)) <= {0.0, 1.0}:
        return Guessing()
    pairs = None if predicted is None else answers.pairs(predicted)
    if pairs is not None and answers.correct(pairs[:, 1]) == [*map(float, values)]:
        return _guessing_classes(pairs, answers, "accuracy")
    chances = answers.right.sum(1) / answers.counts
    return Guessing(random=float(chances.mean()), p=guessing_p(int(sum(values)), chances))


def _guessing_classes(
    pairs: Int[np.ndarray, "example 2"], answers: Answers, aggregate: str
) -> Guessing:
    """Guessing scored by the confusion tables that are expected of it."""
    count = max(2, len(answers.classes or ()))
    table, score = confusion(pairs, count), TABLES[aggregate]
    gold, total = table.sum(1), table.sum()

    def expected(shares: Float[np.ndarray, " predicted"]) -> float:
        return float(score(np.outer(gold, shares)[None])[0])

    return Guessing(
        random=expected(np.full(count, 1 / count)),
        majority=expected(np.eye(count)[gold.argmax()]),
        shuffled=expected(table.sum(0) / total),
        p=shuffling_p(table, score),
    )
