"""Scores of a classifier from its confusion matrix, alongside those of guessing.

A confusion matrix holds gold classes in its rows and predicted classes in its columns; further
axes in front are allowed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

RESAMPLES = 10_000

Metric = Callable[[np.ndarray], np.ndarray | np.float64]


@dataclass(frozen=True)
class Score:
    """One metric of one task, with its baselines."""

    score: float
    stderr: float
    """Standard deviation over bootstrap resamples of the examples."""
    low: float
    """Lower end of the 95% bootstrap interval."""
    high: float
    """Upper end of the 95% bootstrap interval."""
    random: float
    """Score of uniform guessing on these gold labels."""
    majority: float
    """Score of always answering the most frequent gold label."""

    @property
    def beats_baselines(self) -> bool:
        """Whether the whole interval is above both baselines."""
        return self.low > max(self.random, self.majority)


def confusion_matrix(
    gold: Sequence[int], predicted: Sequence[int], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count how often each gold class was predicted as each class."""
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (gold, predicted), 1)
    return confusion


def accuracy(
    confusion: Num[np.ndarray, "*n classes classes"],
) -> Float[np.ndarray, "*n"] | np.float64:
    """Share of the examples on the diagonal."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def macro_f1(
    confusion: Num[np.ndarray, "*n classes classes"],
) -> Float[np.ndarray, "*n"] | np.float64:
    """Mean F1 over the classes that occur among the gold labels or the predictions."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurrences = confusion.sum(-1) + confusion.sum(-2)
    f1 = np.divide(2 * hits, occurrences, out=np.zeros(hits.shape), where=occurrences > 0)
    return f1.sum(-1) / (occurrences > 0).sum(-1)


def score_with_baselines(confusion: Int[np.ndarray, "classes classes"], metric: Metric) -> Score:
    """Score a confusion matrix, with a bootstrap interval and both baselines.

    The bootstrap resamples the cells of the matrix (multinomial, fixed seed), which is equivalent
    to resampling the examples. The random baseline is the metric of the expected confusion matrix
    of uniform guessing.
    """
    gold = confusion.sum(1)
    classes = len(gold)
    total = int(gold.sum())
    draws = np.random.default_rng(0).multinomial(total, confusion.ravel() / total, RESAMPLES)
    resampled = metric(draws.reshape(RESAMPLES, classes, classes))
    low, high = np.quantile(resampled, (0.025, 0.975))
    guesses = np.repeat(gold[:, None] / classes, classes, axis=1)
    majority = np.zeros_like(confusion)
    majority[:, gold.argmax()] = gold
    return Score(
        score=float(metric(confusion)),
        stderr=float(resampled.std()),
        low=float(low),
        high=float(high),
        random=float(metric(guesses)),
        majority=float(metric(majority)),
    )
