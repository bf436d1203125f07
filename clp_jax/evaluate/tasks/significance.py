"""Tests of significance: against guessing, between two models, over many tasks."""

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import stats

SHUFFLES = 10_000
"""Shuffles of the answers over the questions."""

LEVEL = 0.05
"""The corrected p below which a difference counts."""


def guessing_p(right: int, chances: Float[np.ndarray, " example"]) -> float:
    """How often guessing gets a count this unusual right, exactly; twice the smaller tail.

    A sum of binomials, one for each distinct chance: the Poisson binomial distribution.

    Args:
        right: how many answers are right.
        chances: of each example, the probability that a guess is right.
    """
    kinds, counts = np.unique(chances, return_counts=True)
    mass = reduce(
        np.convolve,
        (
            stats.binom.pmf(np.arange(count + 1), count, chance)
            for chance, count in zip(kinds, counts, strict=True)
        ),
    )
    return float(min(1.0, 2 * min(mass[right:].sum(), mass[: right + 1].sum())))


def shuffling_p(
    table: Int[np.ndarray, "gold predicted"],
    score: Callable[[Num[np.ndarray, "draw gold predicted"]], Float[np.ndarray, " draw"]],
) -> float:
    """How often the same answers, dealt to the questions at random, score as unusually.

    Twice the smaller tail.

    Args:
        table: how often each class is right and predicted; see `confusion`.
        score: of such tables.
    """
    tables = stats.random_table(table.sum(1), table.sum(0), seed=0).rvs(SHUFFLES)
    scores, ours = score(tables), score(table[None])
    tail = min((scores >= ours - 1e-12).sum(), (scores <= ours + 1e-12).sum())
    return float(min(1.0, 2 * (tail + 1) / (SHUFFLES + 1)))


def mcnemar_p(ours: Bool[np.ndarray, " example"], others: Bool[np.ndarray, " example"]) -> float:
    """McNemar's exact test of two models' right answers to the same questions, two-sided."""
    only_ours, only_others = int((ours & ~others).sum()), int((~ours & others).sum())
    if only_ours + only_others == 0:
        return 1.0
    return float(stats.binomtest(only_ours, only_ours + only_others).pvalue)


def bootstrap_p(difference: float, draws: Float[np.ndarray, " draw"]) -> float:
    """How often a resampled difference is as far from the measured one as that is from 0.

    Two-sided; the smallest p is one over the number of draws.
    """
    reached = np.abs(draws - difference) >= abs(difference) - 1e-12
    return float((reached.sum() + 1) / (len(draws) + 1))


def p_cell(p: float | None) -> str:
    """A p as the cell of a table."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of the p values of several tests, in their order."""
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(values, float)[order] * factors)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1.0, stepped)
    return corrected.tolist()
