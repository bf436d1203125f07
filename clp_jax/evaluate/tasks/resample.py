"""Bootstrap of a score from sums over the examples, without calling its function again."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from clp_jax.evaluate.tasks import confusion

RESAMPLES = 1000
"""Bootstrap resamples of the examples."""

FEWER = 100
"""Resamples of a metric whose function has to see all examples each time, such as BLEU."""

MOST_CLASSES = 32
"""Classes up to which confusion tables are resampled."""

BLOCK = 100
"""Resamples drawn at the same time."""

Aggregate = Callable[[Sequence[Any]], float]
"""The score of a metric, from its values for all examples."""


class Statistics(NamedTuple):
    """What a score needs to know of its examples.

    Attributes:
        rows: of each example the numbers whose sums make the score.
        score: the score of such sums.
    """

    rows: Float[np.ndarray, "example statistic"]
    score: Callable[[Float[np.ndarray, "draw statistic"]], Float[np.ndarray, " draw"]]


def _ratio(sums: Any) -> Any:
    return sums[:, 0] / sums[:, 1]


RATIOS: dict[str, Callable[[Any], Any]] = {
    "mean": _ratio,
    "perplexity": lambda sums: np.exp(-_ratio(sums)),
    "weighted_perplexity": lambda sums: np.exp(-_ratio(sums)),
    "bits_per_byte": lambda sums: -_ratio(sums) / math.log(2),
}
"""Aggregations of the harness by the name of their function, from sums of values and weights."""

TABLES: dict[str, Callable[[Any], Any]] = {
    "accuracy": confusion.accuracy,
    "macro_f1": confusion.macro_f1,
    "f1_score": confusion.positive_f1,
    "matthews_corrcoef": confusion.matthews,
}
"""Aggregations of pairs of right and predicted class by the name of their function."""


def statistics_of(values: Sequence[Any], aggregate: str) -> Statistics | None:
    """The sums that make a metric; None if none are known.

    Args:
        values: of each example a number, a number with its weight, or the right and the predicted
            class.
        aggregate: the name in `RATIOS` or `TABLES`.
    """
    try:
        numbers = np.asarray(values, float)
    except (TypeError, ValueError):
        return None
    if aggregate in RATIOS and numbers.ndim == 1:
        return Statistics(np.stack([numbers, np.ones_like(numbers)], 1), RATIOS[aggregate])
    if aggregate in RATIOS and numbers.ndim == 2 and numbers.shape[1] == 2:
        return Statistics(numbers, RATIOS[aggregate])
    if aggregate in TABLES and numbers.ndim == 2 and numbers.shape[1] == 2:
        pairs = numbers.astype(int)
        classes = max(2, int(pairs.max()) + 1)
        if pairs.min() >= 0 and classes <= MOST_CLASSES and (pairs == numbers).all():
            return of_pairs(pairs, classes, aggregate)
    return None


def of_pairs(pairs: Int[np.ndarray, "example 2"], classes: int, aggregate: str) -> Statistics:
    """The counts of a confusion table, and the score of `TABLES` that they make."""
    rows = np.eye(classes**2)[pairs[:, 0] * classes + pairs[:, 1]]

    def score(sums: Float[np.ndarray, "draw statistic"]) -> Float[np.ndarray, " draw"]:
        return TABLES[aggregate](sums.reshape(-1, classes, classes))

    return Statistics(rows, score)


def resample(
    rows: Float[np.ndarray, "example statistic"], cluster_of: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "draw statistic"]:
    """Sums of the rows over bootstrap resamples of whole clusters.

    Clusters with equal sums are drawn together, so right and wrong answers cost little.

    Args:
        rows: of each example.
        cluster_of: the number of the cluster of each, such as a passage, from 0.
    """
    sums = np.zeros((int(cluster_of.max()) + 1, rows.shape[1]))
    np.add.at(sums, cluster_of, rows)
    kinds, counts = np.unique(sums, axis=0, return_counts=True)
    rng, total = np.random.default_rng(0), int(counts.sum())
    blocks = (rng.multinomial(total, counts / total, BLOCK) for _ in range(RESAMPLES // BLOCK))
    return np.concatenate([block @ kinds for block in blocks])


def resample_whole(
    values: Sequence[Any], aggregate: Aggregate, cluster_of: Int[np.ndarray, " example"]
) -> Float[np.ndarray, " draw"]:
    """Scores of `FEWER` bootstrap resamples of whole clusters, for any function of the values."""
    rng, count = np.random.default_rng(0), int(cluster_of.max()) + 1
    members = [np.flatnonzero(cluster_of == cluster) for cluster in range(count)]
    drawn = (rng.integers(count, size=count) for _ in range(FEWER))
    chosen = (np.concatenate([members[cluster] for cluster in draw]) for draw in drawn)
    return np.array([aggregate([values[i] for i in ids]) for ids in chosen], float)
