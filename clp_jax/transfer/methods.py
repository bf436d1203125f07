"""The methods by name: one row each."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from clp_jax.transfer.clp import clp, clp_unguarded
from clp_jax.transfer.constant import mean_row, random_rows
from clp_jax.transfer.linear import procrustes, ridge
from clp_jax.transfer.pieces import subword
from clp_jax.transfer.problem import Method
from clp_jax.transfer.pursuit import omp
from clp_jax.transfer.similar import clp_sparse, clp_topk


class Entry(NamedTuple):
    """A method.

    Attributes:
        method: the function.
        basis: what it starts from (`clp_jax.transfer.bases`).
        copy_share: its habit: how much of a shared token's row is the source's.
        maps: whether it maps rows from the helper's space, so that their spread is in question:
            matched norms are tried with it. They magnify the noise of combined rows.
        text: what it does.
    """

    method: Method
    basis: Literal["nothing", "helper_rows", "token_vectors", "word_vectors", "pieces"]
    copy_share: float
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
    """A method and its dials: what `clp_jax.transfer.compose` and the calibration take."""

    method: str
    copy_share: float
    match_norms: bool = False
    calibrate: bool = False
    strict: bool = False

    @property
    def function(self) -> Method:
        """What computes the rows."""
        return clp_unguarded if self.strict else METHODS[self.method].method

    def to_dict(self) -> dict[str, Any]:
        """The dials by name, ready for JSON."""
        return asdict(self)
