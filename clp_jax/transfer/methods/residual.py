"""Ridge, corrected by what it misses at the nearest anchors.

With f ridge's map and r_o = E[o] - f(H[o]) what it misses at anchor o, a query q gets the row

    f(q) + sum_o w_o r_o        with w the softmax of the cosines over the nearest anchors,

where the cosines are about the anchors' mean. A linear map explains what two spaces have in common;
the residuals hold the rest, as far as neighbours agree on it.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import csr_array

from clp_jax.transfer.blockwise import (
    contributors_by,
    matmul,
    row_slices,
    shard_rows,
    zero_rows,
)
from clp_jax.transfer.interface import Contribution, Prediction, Problem
from clp_jax.transfer.methods.linear import fit_ridge, make_map
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
    trained = problem.without(fit.weights == 0)
    unknown, everything = zero_rows(problem.queries), np.arange(len(problem.queries))

    def blocks():
        # The weights sum to one, so sum_o w_o r_o = sum_o w_o E[o] - f(sum_o w_o H[o]).
        mapping = make_map(fit.of, fit.inverse)
        ids, weights = contributors_by(near, trained)(neighbours)
        places = ids if trained.places is None else trained.places[ids]
        for part in row_slices(len(everything)):
            away = problem.queries[part] - _means(weights[part], ids[part], trained.anchors)
            found = np.asarray(matmul(shard_rows(away, problem.mesh), mapping))[: len(away)]
            rows = found + _means(weights[part], places[part], trained.rows)
            yield everything[part], np.where(unknown[part, None], problem.mean, rows)

    def contributors(k: int) -> Contribution:
        center = np.asarray(fit.of.feature_mean)
        keys, anchors = fit.keys(problem)[kept], trained.anchors - center
        both = trained._replace(
            queries=np.concatenate([problem.queries - center] * 2, axis=1),
            anchors=np.concatenate([anchors, keys], axis=1),
        )
        ids, weights = contributors_by(Corrected(near), both)(k)
        return kept[ids], weights

    shape = len(everything), problem.rows.shape[1]
    return Prediction(shape, blocks, {"mean": unknown}, fit.facts, contributors, fit.chosen)


def _means(
    weights: Float[np.ndarray, "query k"],
    ids: Int[np.ndarray, "query k"],
    table: Float[np.ndarray, "row dim"],
) -> Float[np.ndarray, "query dim"]:
    """Each query's weighted sum of k rows of a table."""
    starts = np.arange(0, ids.size + 1, ids.shape[1])
    return csr_array((weights.ravel(), ids.ravel(), starts), shape=(len(ids), len(table))) @ table


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
