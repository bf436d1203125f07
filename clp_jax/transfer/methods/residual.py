"""Ridge, corrected by what it misses at the nearest anchors.

With f ridge's map and r_o = E[o] - f(H[o]) what it misses at anchor o, a query q gets the row

    f(q) + sum_o w_o r_o        with w the softmax of the cosines over the nearest anchors,

where the cosines are about the anchors' mean. A linear map explains what two spaces have in common;
the residuals hold the rest, as far as neighbours agree on it.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from clp_jax.transfer.blockwise import contributors_by, empty_rows, matmul, weighted
from clp_jax.transfer.interface import Contribution, Prediction, Problem
from clp_jax.transfer.methods.linear import LinearMap, fit_ridge
from clp_jax.transfer.methods.similarity import Nearest


def ridge_residual(
    problem: Problem,
    *,
    strength: float | None = None,
    count_exponent: float = 0.5,
    neighbours: int = 20,
    temperature: float = 0.1,
) -> Prediction:
    """Ridge's rows plus the weighted mean of its residuals at the most similar anchors."""
    fit = fit_ridge(problem, strength, count_exponent)
    near = Nearest(neighbours, temperature, centred=True)
    kept = np.flatnonzero(fit.weights)
    mapped = fit.predict(problem)
    residuals = Problem(
        queries=problem.queries,
        anchors=problem.anchors[kept],
        rows=_residuals(problem, fit)[kept],
        mean=np.zeros_like(problem.mean),
        std=problem.std,
        mesh=problem.mesh,
        seed=problem.seed,
    )
    corrections = weighted(near, residuals, mapped.fallback["mean"])

    def blocks():
        for (positions, rows), (_, more) in zip(mapped.blocks(), corrections.blocks(), strict=True):
            yield positions, rows + more

    def contributors(k: int) -> Contribution:
        center = np.asarray(fit.of.feature_mean)
        keys, anchors = fit.keys(problem)[kept], residuals.anchors - center
        both = residuals._replace(
            queries=np.concatenate([problem.queries - center] * 2, axis=1),
            anchors=np.concatenate([anchors, keys], axis=1),
        )
        ids, weights = contributors_by(Corrected(near), both)(k)
        return kept[ids], weights

    return replace(mapped, blocks=blocks, contributors=contributors)


def _residuals(problem: Problem, fit: LinearMap) -> Float[np.ndarray, "anchor dim"]:
    """What the map misses at each anchor."""
    found = fit.predict(problem._replace(queries=problem.anchors))
    rows = empty_rows(*found.shape)
    for ids, block in found.blocks():
        rows[ids] = problem.rows_of(ids) - block
    return rows


@dataclass(frozen=True)
class Corrected:
    """The weights of all anchors; the mean that the map adds cancels in the residuals.

    A residual holds the anchor's row, and what the map makes of the other rows at that anchor: the
    map's weights are those at the query minus its neighbours' mean.

    Attributes:
        near: the weights of the residuals.
    """

    near: Nearest

    def __call__(
        self, queries: Float[Array, "query both"], anchors: Float[Array, "anchor both"]
    ) -> Float[Array, "query anchor"]:
        """The weights of a block of queries.

        Args:
            queries: their features, twice.
            anchors: their features, followed by the map's keys.
        """
        features, keys = jnp.split(anchors, 2, axis=1)
        queries, _ = jnp.split(queries, 2, axis=1)
        weights, ids = self.near(queries, features)
        places = jnp.arange(len(queries))[:, None]
        dense = jnp.zeros((len(queries), len(features))).at[places, ids].add(weights)
        return dense + matmul(queries - matmul(dense, features), keys.T)
