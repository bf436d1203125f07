"""The methods by name, and the two baselines that each of them has to beat."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from clp_jax.transfer.blockwise import row_slices
from clp_jax.transfer.interface import Method, Prediction, Problem, at_once
from clp_jax.transfer.methods.clp import clp, clp_unguarded
from clp_jax.transfer.methods.linear import procrustes, ridge
from clp_jax.transfer.methods.pursuit import omp
from clp_jax.transfer.methods.similarity import clp_sparse, clp_topk, subword


def random_rows(problem: Problem) -> Prediction:
    """Draws from a normal distribution with the source table's mean and standard deviation."""
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
        basis: its input (`clp_jax.transfer.anchors`).
        source_weight: its default weight of the source in a shared token's row.
        maps: whether it maps rows from the helper's space. Their spread may then differ from the
            source's, so `auto` also tries matching it. For combined rows that would amplify noise.
        text: a short description.
    """

    method: Method
    basis: Literal["nothing", "helper_rows", "token_vectors", "word_vectors", "pieces"]
    source_weight: float
    maps: bool
    text: str


# Published methods have the defaults of their papers. The others copy shared rows and leave norms
# alone, which is safe: the best options differ between models (docs/results/methods.md).
METHODS = {
    "random": Entry(
        random_rows, "nothing", 1.0, False, "draws with the source's mean and deviation"
    ),
    "mean": Entry(mean_row, "nothing", 1.0, False, "the source's mean row"),
    "subword": Entry(subword, "pieces", 1.0, False, "mean of the source tokens that spell it"),
    "clp": Entry(
        clp, "helper_rows", 1.0, False, "the paper's formula: shared tokens by the helper's cosine"
    ),
    "clp-sparse": Entry(clp_sparse, "helper_rows", 1.0, False, "CLP+: sparsemax weights"),
    "clp-topk": Entry(
        clp_topk, "helper_rows", 1.0, False, "softmax over the 10 nearest shared tokens"
    ),
    "ridge": Entry(ridge, "helper_rows", 1.0, True, "least squares from helper to source rows"),
    "procrustes": Entry(procrustes, "helper_rows", 1.0, True, "the helper's rows, rotated"),
    "omp": Entry(omp, "helper_rows", 1.0, False, "matching pursuit over 8 shared tokens"),
    "wechsel": Entry(clp_topk, "word_vectors", 0.0, False, "nearest source tokens by word vectors"),
    "focus": Entry(clp_sparse, "token_vectors", 1.0, False, "sparsemax by token vectors"),
}

ROTATION = "procrustes"
"""A rotation keeps the helper's spread, which ruins real models: it is chosen only by text."""


@dataclass(frozen=True)
class Recipe:
    """A method and its options, as used for composing the table and calibrating it."""

    method: str
    source_weight: float
    match_spread: bool = False
    calibrate: bool = False
    no_fallback: bool = False

    @property
    def function(self) -> Method:
        """The function that computes the rows."""
        return clp_unguarded if self.no_fallback else METHODS[self.method].method

    def to_dict(self) -> dict[str, Any]:
        """The options by name, ready for JSON."""
        return asdict(self)
