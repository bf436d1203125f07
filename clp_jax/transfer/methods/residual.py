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

from clp_jax.transfer.blockwise import contributors_by, matmul, shard_rows, weighted, zero_rows
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
    mapped, unknown = fit.predict(problem), zero_rows(problem.queries)

    def blocks():
        # The weights sum to one, so sum_o w_o r_o = sum_o w_o E[o] - f(sum_o w_o H[o]).
        mapping = make_map(fit.of, fit.inverse)
        features = trained._replace(
            rows=trained.anchors, mean=np.zeros(trained.anchors.shape[1], np.float32), places=None
        )
        means = (weighted(near, of, unknown).blocks() for of in (trained, features))
        for (positions, rows), (_, centers) in zip(*means, strict=True):
            away = shard_rows(problem.queries[positions] - centers, problem.mesh)
            mapped_away = np.asarray(matmul(away, mapping))[: len(positions)]
            lost = unknown[positions, None]
            yield positions, rows + np.where(lost, 0, mapped_away)

    def contributors(k: int) -> Contribution:
        center = np.asarray(fit.of.feature_mean)
        keys, anchors = fit.keys(problem)[kept], trained.anchors - center
        both = trained._replace(
            queries=np.concatenate([problem.queries - center] * 2, axis=1),
            anchors=np.concatenate([anchors, keys], axis=1),
        )
        ids, weights = contributors_by(Corrected(near), both)(k)
        return kept[ids], weights

    return replace(mapped, blocks=blocks, contributors=contributors)


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
