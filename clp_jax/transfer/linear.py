r"""A linear map from the features' space to the source's, fitted to the anchors.

With A and Y the anchors' features and rows, each less its mean, both maps are W = G A^T Y:

* ridge: the least squares of |A W - Y|^2 + l |W|^2, so G = (A^T A + l I)^-1;
* Procrustes: the rotation that maps A best on Y, times the best scale. With the singular values
  A^T Y = U S V^T it is W = s U V^T, so G = s U S^-1 U^T, and s = sum(S) / |A|^2.

A query q gets the row (q - mean(A)) W + mean(Y). It is linear in the anchors' rows too: anchor o
has the weight (q - mean(A)) G a_o, beside the mean that all share.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.transfer.engine import contributors_by
from clp_jax.transfer.problem import Prediction, Problem
from clp_jax.transfer.rows import matmul, shard_rows, zero_rows

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
"""Candidates for ridge's regularisation l, in units of tr(A^T A) / d, a feature's mean square."""

HELD_OUT = 10
"""One anchor of so many is held out to choose among them."""


class Moments(NamedTuple):
    """All that the maps need to know of the anchors."""

    feature_mean: Float[Array, "feature"]
    row_mean: Float[Array, "dim"]
    features: Float[Array, "feature feature"]
    products: Float[Array, "feature dim"]


@jax.jit
def moments(
    anchors: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"],
    count: int | Int[Array, ""],
) -> Moments:
    """Means, A^T A and A^T Y of the first ``count`` anchors; the others only pad the tables."""
    real = (jnp.arange(len(anchors)) < count)[:, None]
    feature_mean, row_mean = anchors.sum(axis=0) / count, rows.sum(axis=0) / count
    a, y = jnp.where(real, anchors - feature_mean, 0), jnp.where(real, rows - row_mean, 0)
    return Moments(feature_mean, row_mean, matmul(a.T, a), matmul(a.T, y))


@jax.jit
def apply_map(
    queries: Float[Array, "query feature"],
    of: Moments,
    inverse: Float[Array, "feature feature"],
) -> Float[Array, "query dim"]:
    """The rows of the queries, for the map with this G."""
    return matmul(queries - of.feature_mean, matmul(inverse, of.products)) + of.row_mean


@jax.jit
def ridge_inverse(
    of: Moments, strength: float | Float[Array, ""]
) -> Float[Array, "feature feature"]:
    """Ridge's G, for a strength in units of the mean square of a feature."""
    values, vectors = jnp.linalg.eigh(of.features)
    scaled = strength * jnp.maximum(values.mean(), jnp.finfo(values.dtype).tiny)
    return matmul(vectors / (jnp.maximum(values, 0) + scaled), vectors.T)


@jax.jit
def procrustes_inverse(of: Moments) -> Float[Array, "feature feature"]:
    """Procrustes' G; directions in which features and rows have nothing in common are dropped."""
    left, values, _ = jnp.linalg.svd(of.products, full_matrices=False)
    safe = values > values[0] * 1e-6
    scale = values.sum() / jnp.maximum(jnp.trace(of.features), jnp.finfo(values.dtype).tiny)
    return scale * matmul(left * jnp.where(safe, 1 / jnp.where(safe, values, 1), 0), left.T)


@jax.jit
def _held_out_errors(
    of: Moments,
    anchors: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"],
    count: int | Int[Array, ""],
) -> Float[Array, "strength"]:
    """For each strength, the squared error of the first ``count`` rows, as a share of Y's."""
    real = (jnp.arange(len(anchors)) < count)[:, None]
    wanted = jnp.where(real, rows - of.row_mean, 0)
    values, vectors = jnp.linalg.eigh(of.features)
    inside = matmul(anchors - of.feature_mean, vectors)
    products = matmul(vectors.T, of.products)

    def error(strength: Array) -> Array:
        scaled = jnp.maximum(values, 0) + strength * values.mean()
        found = jnp.where(real, matmul(inside / scaled, products), 0)
        return jnp.sum((found - wanted) ** 2) / jnp.sum(wanted**2)

    return jax.lax.map(error, jnp.array(STRENGTHS))


def ridge(problem: Problem) -> Prediction:
    """Least squares from the features to the rows, regularised as held-out anchors like best.

    With too few anchors to hold one out it is regularised as much as it can be.
    """
    held_out = np.arange(len(problem.anchors)) % HELD_OUT == HELD_OUT - 1
    facts = {"strength": STRENGTHS[-1]}
    if held_out.any():
        fitted = _moments(problem.anchors[~held_out], problem.rows[~held_out], problem)
        tables = (
            shard_rows(table[held_out], problem.mesh) for table in (problem.anchors, problem.rows)
        )
        errors = np.asarray(_held_out_errors(fitted, *tables, held_out.sum()))
        best = int(np.argmin(errors))
        facts = {"strength": STRENGTHS[best], "held_out_error": float(errors[best])}
    of = _moments(problem.anchors, problem.rows, problem)
    return _mapped(problem, of, ridge_inverse(of, facts["strength"]), facts)


def procrustes(problem: Problem) -> Prediction:
    """The rotation and the scale that map the features on the rows best."""
    of = _moments(problem.anchors, problem.rows, problem)
    return _mapped(problem, of, procrustes_inverse(of), {})


def _moments(anchors: np.ndarray, rows: np.ndarray, problem: Problem) -> Moments:
    tables = (shard_rows(table, problem.mesh) for table in (anchors, rows))
    return moments(*tables, len(anchors))


def _mapped(problem: Problem, of: Moments, inverse: Array, facts: dict[str, float]) -> Prediction:
    rows = np.array(apply_map(shard_rows(problem.queries, problem.mesh), of, inverse))
    rows, unknown = rows[: len(problem.queries)], zero_rows(problem.queries)
    rows[unknown] = problem.mean

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
        center, keys = np.asarray(of.feature_mean), np.asarray(inverse)
        centred = problem._replace(
            queries=problem.queries - center, anchors=(problem.anchors - center) @ keys
        )
        return contributors_by(linear_weights, centred)(k)

    return Prediction(rows, {"mean": unknown}, facts, contributors)


def linear_weights(
    queries: Float[Array, "query feature"], keys: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The weight of every anchor, for centred queries and keys (a G)."""
    return matmul(queries, keys.T)
