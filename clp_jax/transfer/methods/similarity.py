"""Weights by similarity, all of them non-negative, and equal weights for the pieces of a token.

With z the cosines of a query to the anchors (0 for zero rows):

* `Nearest`: softmax(z / temperature) over the k largest, as in WECHSEL (Minixhofer et al. 2022);
* `sparsemax`: max(0, z - theta) with theta such that the weights sum to one (Martins & Astudillo
  2016), as in FOCUS (Dobler & de Melo 2023), and in CLP+ (Yamaguchi et al. 2024) for CLP's
  anchors. Many anchors share the weight of a row, since all cosines are close together.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from clp_jax.transfer.blockwise import Sparse, matmul, unit_rows, weighted, zero_rows
from clp_jax.transfer.interface import Prediction, Problem
from clp_jax.vocabulary import Vocabulary

NOTHING = -1.0


def spell(
    source: Vocabulary, target: Vocabulary, ids: Int[np.ndarray, " token"]
) -> list[list[int]]:
    """The source ids that spell each target token, as split by the source tokenizer's model.

    The list is empty for special tokens and for tokens that the source cannot spell.
    """
    tokens = (target.tokens[id] for id in ids.tolist())
    return [[] if token.roles else source.pieces(token) for token in tokens]


def as_queries(
    spellings: list[list[int]], pieces: Int[np.ndarray, " piece"]
) -> Float[np.ndarray, "query longest"]:
    """The positions of each token's pieces among ``pieces`` (ascending), padded with -1.

    They are integers stored as float32, which is exact up to 2^24 pieces.
    """
    longest = max(map(len, spellings), default=0)
    queries = np.full((len(spellings), max(longest, 1)), NOTHING, np.float32)
    for row, spelling in zip(queries, spellings, strict=True):
        row[: len(spelling)] = np.searchsorted(pieces, spelling)
    return queries


def equal_parts(
    queries: Float[Array, "query longest"], anchors: Float[Array, "anchor feature"]
) -> Sparse:
    """Equal weights for the pieces at the positions in the queries."""
    real = queries > NOTHING
    weights = real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
    return Sparse(weights.astype(jnp.float32), jnp.where(real, queries, 0).astype(jnp.int32))


def subword(problem: Problem) -> Prediction:
    """The mean row of the pieces; the queries are the pieces' positions among the anchors."""
    return weighted(equal_parts, problem, (problem.queries == NOTHING).all(axis=1))


def cosines(
    queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The cosine of every query with every anchor."""
    return matmul(unit_rows(queries), unit_rows(anchors).T)


@dataclass(frozen=True)
class Nearest:
    """Softmax over the most similar anchors.

    Attributes:
        neighbours: how many anchors share the weight.
        temperature: divides the cosines; the smaller, the more the nearest gets.
        centred: whether cosines are about the anchors' mean.
    """

    neighbours: int = 10
    temperature: float = 0.1
    centred: bool = False

    def __call__(
        self, queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
    ) -> Sparse:
        """The weights of a block of queries."""
        if self.centred:
            center = anchors.mean(axis=0, keepdims=True)
            queries, anchors = queries - center, anchors - center
        best, ids = jax.lax.top_k(cosines(queries, anchors), min(self.neighbours, len(anchors)))
        return Sparse(jax.nn.softmax(best / self.temperature, axis=1), ids)


_Michelot = tuple[Float[Array, "query 1"], Int[Array, "query 1"], Bool[Array, "query 1"]]
"""Theta, the number of anchors above it, and whether one of them dropped out."""


def sparsemax(
    queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The projection of the cosines onto the probability simplex, without sorting.

    Theta starts at max(z) - 1, which is too small. Each step sets it to the solution for the
    anchors above it, until none of them drops out. Theta only grows, so this terminates with the
    exact solution (Michelot 1986). It also stops if rounding brings anchors back.
    """
    z = cosines(queries, anchors)
    z -= z.max(axis=1, keepdims=True)  # smaller numbers lose less to rounding

    def solve(
        theta: Float[Array, "query 1"],
    ) -> tuple[Float[Array, "query 1"], Int[Array, "query 1"]]:
        above = z > theta
        count = above.sum(axis=1, keepdims=True)
        return (jnp.where(above, z, 0).sum(axis=1, keepdims=True) - 1) / count, count

    def step(state: _Michelot) -> _Michelot:
        theta, count, _ = state
        new_theta, new_count = solve(theta)
        fewer = new_count < count
        return jnp.where(fewer, new_theta, theta), jnp.minimum(new_count, count), fewer

    theta, count = solve(jnp.full((len(z), 1), -1.0))
    theta, _, _ = jax.lax.while_loop(
        lambda state: jnp.any(state[2]), step, (theta, count, jnp.ones_like(count, bool))
    )
    weights = jnp.maximum(z - theta, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def clp_topk(problem: Problem, *, neighbours: int = 10, temperature: float = 0.1) -> Prediction:
    """The softmax-weighted mean of the most similar anchors' rows."""
    return weighted(Nearest(neighbours, temperature), problem, zero_rows(problem.queries))


def clp_sparse(problem: Problem) -> Prediction:
    """The sparsemax-weighted mean of the similar anchors' rows."""
    return weighted(sparsemax, problem, zero_rows(problem.queries))
