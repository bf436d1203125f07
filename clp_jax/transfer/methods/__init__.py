"""The methods by name, and the two baselines that each of them has to beat."""

import inspect
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from clp_jax.transfer.blockwise import row_slices
from clp_jax.transfer.interface import Method, Prediction, Problem, at_once
from clp_jax.transfer.methods.clp import clp, clp_unguarded
from clp_jax.transfer.methods.linear import flor, procrustes, ridge, sava
from clp_jax.transfer.methods.pursuit import omp
from clp_jax.transfer.methods.residual import ridge_residual
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
        ranked: whether `auto` tries it. Left out are baselines, maps that differ little from ridge,
            and `omp`, which takes longer than all others together.
    """

    method: Method
    basis: Literal[
        "nothing", "helper_rows", "rows_and_pieces", "token_vectors", "word_vectors", "pieces"
    ]
    source_weight: float
    maps: bool
    text: str
    ranked: bool = True

    @property
    def constants(self) -> dict[str, Any]:
        """The method's constants and their defaults."""
        parameters = inspect.signature(self.method).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


# Published methods have the defaults of their papers. The others copy shared rows and leave norms
# alone, which is safe: the best options differ between models (docs/results/methods.md).
METHODS = {
    "random": Entry(
        random_rows, "nothing", 1.0, False, "draws with the source's mean and deviation", False
    ),
    "mean": Entry(mean_row, "nothing", 1.0, False, "the source's mean row", False),
    "subword": Entry(subword, "pieces", 1.0, False, "mean of the source tokens that spell it"),
    "clp": Entry(
        clp, "helper_rows", 1.0, False, "the paper's formula: shared tokens by the helper's cosine"
    ),
    "clp-sparse": Entry(clp_sparse, "helper_rows", 1.0, False, "CLP+: sparsemax weights"),
    "clp-topk": Entry(
        clp_topk, "helper_rows", 1.0, False, "softmax over the nearest shared tokens"
    ),
    "ridge": Entry(ridge, "helper_rows", 1.0, True, "least squares from helper to source rows"),
    "ridge-residual": Entry(
        ridge_residual, "helper_rows", 1.0, True, "ridge and its residuals at the nearest tokens"
    ),
    "ridge-joint": Entry(
        ridge, "rows_and_pieces", 1.0, True, "ridge from helper rows and the source's pieces"
    ),
    "sava": Entry(sava, "helper_rows", 1.0, True, "least squares, not regularised", False),
    "flor": Entry(flor, "helper_rows", 1.0, True, "least squares through the origin", False),
    "procrustes": Entry(procrustes, "helper_rows", 1.0, True, "the helper's rows, rotated"),
    "omp": Entry(omp, "helper_rows", 1.0, False, "matching pursuit over shared tokens", False),
    "wechsel": Entry(clp_topk, "word_vectors", 0.0, False, "nearest source tokens by word vectors"),
    "focus": Entry(clp_sparse, "token_vectors", 1.0, False, "sparsemax by token vectors"),
}

ROTATION = "procrustes"
"""A rotation keeps the helper's spread, which ruins real models: it is chosen only by text."""


@dataclass(frozen=True)
class Recipe:
    """A method and its options, as used for composing the table and calibrating it.

    Attributes:
        method: its name.
        source_weight: the weight of the source in a shared token's row.
        match_spread: whether computed rows are scaled to the spread of the source's.
        spread_shrinkage: how far the factor of each principal direction is drawn to the common one;
            None for that one alone.
        by_reliability: whether the weight of the source is less, the worse a row is predicted.
        calibrate: whether output rows are shifted to the text's frequencies.
        no_fallback: whether `clp` keeps the formula for every row.
        constants: the method's constants that differ from their defaults, as pairs.
    """

    method: str
    source_weight: float
    match_spread: bool = False
    spread_shrinkage: float | None = None
    by_reliability: bool = False
    calibrate: bool = False
    no_fallback: bool = False
    constants: tuple[tuple[str, Any], ...] = ()

    @property
    def function(self) -> Method:
        """The function that computes the rows."""
        if self.no_fallback:
            return clp_unguarded
        method = METHODS[self.method].method
        return partial(method, **dict(self.constants)) if self.constants else method

    def to_dict(self) -> dict[str, Any]:
        """The options by name, with all constants, ready for JSON."""
        return asdict(self) | {"constants": METHODS[self.method].constants | dict(self.constants)}
