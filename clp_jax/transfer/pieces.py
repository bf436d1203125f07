"""The mean row of the source's tokens that spell a target token (FVT, Gee et al. 2022)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.transfer.engine import Sparse, weighted
from clp_jax.transfer.problem import Prediction, Problem
from clp_jax.vocabulary import Vocabulary

NOTHING = -1.0


def spell(
    source: Vocabulary, target: Vocabulary, ids: Int[np.ndarray, " token"]
) -> list[list[int]]:
    """Source ids that spell each target token, cut by the source tokenizer's own model.

    Special tokens, and those that the source cannot spell, have none.
    """
    tokens = (target.tokens[id] for id in ids.tolist())
    return [[] if token.roles else source.pieces(token) for token in tokens]


def as_queries(
    spellings: list[list[int]], pieces: Int[np.ndarray, " piece"]
) -> Float[np.ndarray, "query longest"]:
    """The positions of each token's pieces among ``pieces`` (ascending), filled up with -1.

    They are whole numbers in float32, exact for as many pieces as there can be.
    """
    longest = max(map(len, spellings), default=0)
    queries = np.full((len(spellings), max(longest, 1)), NOTHING, np.float32)
    for row, spelling in zip(queries, spellings, strict=True):
        row[: len(spelling)] = np.searchsorted(pieces, spelling)
    return queries


def equal_parts(
    queries: Float[Array, "query longest"], anchors: Float[Array, "anchor feature"]
) -> Sparse:
    """Equal weights for the pieces at the positions that the queries hold."""
    real = queries > NOTHING
    weights = real / jnp.maximum(real.sum(axis=1, keepdims=True), 1)
    return Sparse(weights.astype(jnp.float32), jnp.where(real, queries, 0).astype(jnp.int32))


def subword(problem: Problem) -> Prediction:
    """The mean row of the pieces; the queries are the pieces' positions among the anchors."""
    return weighted(equal_parts, problem, (problem.queries == NOTHING).all(axis=1))
