from itertools import product

import numpy as np
import pytest

from clp_jax.evaluate.tasks.confusion import accuracy, confusion
from clp_jax.evaluate.tasks.significance import (
    SHUFFLES,
    bootstrap_p,
    guessing_p,
    holm,
    mcnemar_p,
    shuffling_p,
)


def test_guessing_is_exact_for_unequal_chances():
    chances = np.array([1 / 2, 1 / 4, 1 / 4, 2 / 5])
    for right in range(5):
        tails = [
            sum(
                np.prod(np.where(outcome, chances, 1 - chances))
                for outcome in product((True, False), repeat=4)
                if sign * sum(outcome) >= sign * right
            )
            for sign in (1, -1)
        ]
        assert guessing_p(right, chances) == pytest.approx(min(1, 2 * min(tails)))


def test_guessing_of_equal_chances_is_the_binomial_test():
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(70, 200, 0.25, alternative="greater").pvalue
    assert guessing_p(70, np.full(200, 0.25)) == pytest.approx(2 * expected)


def test_shuffling_is_the_permutation_test():
    rng = np.random.default_rng(0)
    gold = rng.integers(3, size=60)
    guess = np.where(rng.random(60) < 0.15, gold, rng.integers(3, size=60))
    right = (gold == guess).sum()
    naive = np.mean([(rng.permutation(gold) == guess).sum() >= right for _ in range(4000)])
    found = shuffling_p(confusion(np.stack([gold, guess], 1), 3), accuracy)
    assert found == pytest.approx(2 * naive, abs=0.04)


def test_the_same_answer_to_everything_is_no_evidence():
    assert shuffling_p(np.array([[80, 0], [20, 0]]), accuracy) == 1
    assert shuffling_p(np.array([[50, 0], [0, 50]]), accuracy) == 2 / (SHUFFLES + 1)


def test_mcnemar_by_hand():
    # One question only the first answers, nine only the second: 2 (1 + 10) / 2^10.
    ours = np.array([True] + [False] * 9 + [True] * 30 + [False] * 5)
    others = np.array([False] + [True] * 9 + [True] * 30 + [False] * 5)
    assert mcnemar_p(ours, others) == pytest.approx(22 / 1024)
    assert mcnemar_p(ours, ours) == 1


def test_the_p_of_a_bootstrap_is_that_of_the_normal_distribution():
    stats = pytest.importorskip("scipy.stats")
    draws = np.random.default_rng(0).normal(2, 1, 20_000)
    assert bootstrap_p(2.0, draws) == pytest.approx(2 * stats.norm.sf(2), abs=5e-3)
    assert bootstrap_p(0.0, np.zeros(99)) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []
