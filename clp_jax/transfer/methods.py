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
    """A method, what it starts from (`clp_jax.transfer.bases`), and what it does.

    ``copy_share`` is how much of a shared token's row it takes from the source unless told otherwise.
    """

    method: Method
    basis: Literal["nothing", "helper_rows", "token_vectors", "word_vectors", "pieces"]
    copy_share: float
    text: str


METHODS = {
    "random": Entry(random_rows, "nothing", 1, "normal draws, the source's mean and deviation"),
    "mean": Entry(mean_row, "nothing", 1, "the source's mean row"),
    "subword": Entry(subword, "pieces", 1, "mean of the source tokens that spell it"),
    "clp": Entry(clp, "helper_rows", 1, "the paper: all shared tokens, by the helper's cosine"),
    "clp-sparse": Entry(clp_sparse, "helper_rows", 1, "the same with sparsemax weights (CLP+)"),
    "clp-topk": Entry(clp_topk, "helper_rows", 1, "softmax over the 10 nearest shared tokens"),
    "ridge": Entry(ridge, "helper_rows", 1, "least squares from helper to source rows"),
    "procrustes": Entry(procrustes, "helper_rows", 1, "rotation and scale of the helper's rows"),
    "omp": Entry(omp, "helper_rows", 1, "matching pursuit over 8 shared tokens"),
    "wechsel": Entry(clp_topk, "word_vectors", 0, "nearest source tokens by aligned word vectors"),
    "focus": Entry(clp_sparse, "token_vectors", 1, "sparsemax by fastText vectors of tokens"),
}


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
