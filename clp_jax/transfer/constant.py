"""Rows that know nothing of their token: what a method has to beat."""

import numpy as np

from clp_jax.transfer.problem import Prediction, Problem, at_once
from clp_jax.transfer.rows import row_slices


def random_rows(problem: Problem) -> Prediction:
    """Draws from a normal distribution with the source table's mean and deviation."""
    count, dim = len(problem.queries), len(problem.mean)

    def blocks():
        rng, positions = np.random.default_rng(problem.seed), np.arange(count)
        for part in row_slices(count):
            draws = rng.standard_normal((len(positions[part]), dim), np.float32)
            yield positions[part], problem.mean + problem.std * draws

    return Prediction((count, dim), blocks)


def mean_row(problem: Problem) -> Prediction:
    """The mean row of the source's table."""
    rows = np.broadcast_to(problem.mean, (len(problem.queries), len(problem.mean)))
    return Prediction(rows.shape, at_once(rows))
