"""The methods by name, one row each, and the two baselines that each has to beat."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from clp_jax.transfer.blockwise import row_slices
from clp_jax.transfer.methods.clp import clp, clp_unguarded
from clp_jax.transfer.methods.interface import Method, Prediction, Problem, at_once
from clp_jax.transfer.methods.linear import procrustes, ridge
from clp_jax.transfer.methods.pursuit import omp
from clp_jax.transfer.methods.similarity import clp_sparse, clp_topk, subword


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


class Entry(NamedTuple):
    """A method.

    Attributes:
        method: the function.
        basis: what it starts from (`clp_jax.transfer.anchors`).
        source_weight: its default: how much of a shared token's row is the source's.
        maps: whether it maps rows from the helper's space, so that their spread is in question:
            matched norms are tried with it. They magnify the noise of combined rows.
        text: what it does.
    """

    method: Method
    basis: Literal["nothing", "helper_rows", "token_vectors", "word_vectors", "pieces"]
    source_weight: float
    maps: bool
    text: str


# The habits of published methods are those of their papers. The others copy shared rows and leave
# norms alone, which is safe: what is best differs between models (docs/results/methods.md).
METHODS = {
    "random": Entry(random_rows, "nothing", 1.0, False, "normal draws with the source's deviation"),
    "mean": Entry(mean_row, "nothing", 1.0, False, "the source's mean row"),
    "subword": Entry(subword, "pieces", 1.0, False, "mean of the source tokens that spell it"),
    "clp": Entry(
        clp, "helper_rows", 1.0, False, "the paper: all shared tokens by the helper's cosine"
    ),
    "clp-sparse": Entry(clp_sparse, "helper_rows", 1.0, False, "CLP+: with sparsemax weights"),
    "clp-topk": Entry(
        clp_topk, "helper_rows", 1.0, False, "softmax over the 10 nearest shared tokens"
    ),
    "ridge": Entry(ridge, "helper_rows", 1.0, True, "least squares from helper to source rows"),
    "procrustes": Entry(procrustes, "helper_rows", 1.0, True, "the helper's rows, rotated"),
    "omp": Entry(omp, "helper_rows", 1.0, False, "matching pursuit over 8 shared tokens"),
    "wechsel": Entry(clp_topk, "word_vectors", 0.0, False, "nearest source tokens by word vectors"),
    "focus": Entry(clp_sparse, "token_vectors", 1.0, False, "sparsemax by vectors of tokens"),
}

ROTATION = "procrustes"
"""A rotation keeps the helper's spread, which ruins real models: only text can speak for it."""


@dataclass(frozen=True)
class Recipe:
    """A method and its options: what `clp_jax.transfer.compose` and the calibration take."""

    method: str
    source_weight: float
    match_spread: bool = False
    calibrate: bool = False
    no_fallback: bool = False

    @property
    def function(self) -> Method:
        """What computes the rows."""
        return clp_unguarded if self.no_fallback else METHODS[self.method].method

    def to_dict(self) -> dict[str, Any]:
        """The options by name, ready for JSON."""
        return asdict(self)
