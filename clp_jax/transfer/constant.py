"""Rows that know nothing of their token: what a method has to beat."""

import numpy as np

from clp_jax.transfer.problem import Prediction, Problem


def random_rows(problem: Problem) -> Prediction:
    """Draws from a normal distribution with the source table's mean and deviation."""
    draws = np.random.default_rng(problem.seed).standard_normal(
        (len(problem.queries), len(problem.mean)), np.float32
    )
    return Prediction(problem.mean + problem.std * draws)


def mean_row(problem: Problem) -> Prediction:
    """The mean row of the source's table."""
    return Prediction(np.tile(problem.mean, (len(problem.queries), 1)))
