r"""Linear maps from the space of the features to that of the source's rows, fitted to the anchors.

With A and Y the anchors' features and rows, each minus its mean, both maps are W = G A^T Y:

* ridge: minimises |A W - Y|^2 + l |W|^2, so G = (A^T A + l I)^-1;
* Procrustes: the rotation that best maps A onto Y, times the best scale. With the singular value
  decomposition A^T Y = U S V^T, W = s U V^T, so G = s U S^-1 U^T and s = sum(S) / |A|^2.

A query q gets the row (q - mean(A)) W + mean(Y). The row is also linear in the anchors' rows:
anchor o has the weight (q - mean(A)) G a_o, in addition to the shared mean.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.transfer.blockwise import (
    contributors_by,
    in_blocks,
    matmul,
    zero_rows,
)
from clp_jax.transfer.interface import Contribution, Prediction, Problem
from clp_jax.transfer.sums import Sums, add_blocks, known_blocks, sums_of

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
"""Candidates for ridge's regularisation l, in units of tr(A^T A) / d, a feature's mean square."""

HELD_OUT = 10
"""One anchor in this many is held out to choose the strength."""


class Moments(NamedTuple):
    """The statistics of the anchors that the maps need."""

    feature_mean: Float[Array, " feature"]
    row_mean: Float[Array, " dim"]
    features: Float[Array, "feature feature"]
    products: Float[Array, "feature dim"]


class Center(NamedTuple):
    """Subtracted from features and rows before summing; near the means, to avoid cancellation."""

    features: Float[np.ndarray, " feature"]
    rows: Float[np.ndarray, " dim"]


@jax.jit
def add_up(
    anchors: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"],
    center: Center,
    count: int | Int[Array, ""],
) -> Sums:
    """The sums over the first ``count`` anchors minus the center; the rest is padding."""
    real = (jnp.arange(len(anchors)) < count)[:, None]
    a = jnp.where(real, anchors - center.features, 0)
    y = jnp.where(real, rows - center.rows, 0)
    return sums_of(a, y)


@jax.jit
def about_means(of: Sums, center: Center, count: int | Int[Array, ""]) -> Moments:
    """The moments of the ``count`` summed anchors about their means."""
    a, y = of.features / count, of.rows / count
    return Moments(
        a + center.features,
        y + center.rows,
        of.squares - count * jnp.outer(a, a),
        of.products - count * jnp.outer(a, y),
    )


@jax.jit
def make_map(of: Moments, inverse: Float[Array, "feature feature"]) -> Float[Array, "feature dim"]:
    """W for a given G."""
    return matmul(inverse, of.products)


@jax.jit
def apply_map(
    queries: Float[Array, "query feature"], of: Moments, mapping: Float[Array, "feature dim"]
) -> Float[Array, "query dim"]:
    """The rows of the queries."""
    return matmul(queries - of.feature_mean, mapping) + of.row_mean


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
    """Procrustes' G; directions without correlation between features and rows are dropped."""
    left, values, _ = jnp.linalg.svd(of.products, full_matrices=False)
    safe = values > values[0] * 1e-6
    scale = values.sum() / jnp.maximum(jnp.trace(of.features), jnp.finfo(values.dtype).tiny)
    return scale * matmul(left * jnp.where(safe, 1 / jnp.where(safe, values, 1), 0), left.T)


class Spectrum(NamedTuple):
    """What ridge needs for any strength: eigenvalues, eigenvectors, and A^T Y in their basis."""

    values: Float[Array, " feature"]
    vectors: Float[Array, "feature feature"]
    products: Float[Array, "feature dim"]


@jax.jit
def _spectrum(of: Moments) -> Spectrum:
    values, vectors = jnp.linalg.eigh(of.features)
    return Spectrum(values, vectors, matmul(vectors.T, of.products))


@jax.jit
def _squared_errors(
    of: Moments,
    spectrum: Spectrum,
    anchors: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"],
    count: int | Int[Array, ""],
) -> Float[Array, " one_more_than_strengths"]:
    """The squared error over the first ``count`` rows, for the mean row, then for each strength."""
    values, vectors, products = spectrum
    real = (jnp.arange(len(anchors)) < count)[:, None]
    wanted = jnp.where(real, rows - of.row_mean, 0)
    inside = matmul(anchors - of.feature_mean, vectors)

    def error(strength: Float[Array, ""]) -> Float[Array, ""]:
        scaled = jnp.maximum(values, 0) + strength * values.mean()
        found = jnp.where(real, matmul(inside / scaled, products), 0)
        return jnp.sum((found - wanted) ** 2)

    errors = jax.lax.map(error, jnp.array(STRENGTHS))
    return jnp.concatenate([jnp.sum(wanted**2)[None], errors])


def ridge(problem: Problem) -> Prediction:
    """Least squares from features to rows, with the regularisation that held-out anchors favour.

    With too few anchors to hold one out, it uses the strongest regularisation.
    """
    center, ids = _center(problem), np.arange(len(problem.anchors))
    held_out = ids % HELD_OUT == HELD_OUT - 1
    sums, facts = _sums(problem, center, ids[~held_out]), {"strength": STRENGTHS[-1]}
    if held_out.any():
        errors = _held_out_errors(
            problem, about_means(sums, center, (~held_out).sum()), ids[held_out]
        )
        best = int(np.argmin(errors))
        facts = {"strength": STRENGTHS[best], "held_out_error": float(errors[best])}
        sums = jax.tree.map(jnp.add, sums, _sums(problem, center, ids[held_out]))
    of = about_means(sums, center, len(ids))
    return _mapped(problem, of, ridge_inverse(of, facts["strength"]), facts)


def procrustes(problem: Problem) -> Prediction:
    """The rotation and the scale that best map the features onto the rows."""
    of = moments(problem)
    return _mapped(problem, of, procrustes_inverse(of), {})


def moments(problem: Problem) -> Moments:
    """The moments of all anchors."""
    center, ids = _center(problem), np.arange(len(problem.anchors))
    return about_means(_sums(problem, center, ids), center, len(ids))


def _center(problem: Problem) -> Center:
    return Center(problem.anchors.mean(axis=0, dtype=np.float64).astype(np.float32), problem.mean)


def _sums(problem: Problem, center: Center, ids: Int[np.ndarray, " chosen"]) -> Sums:
    """The sums over some anchors, minus the center."""
    return add_blocks(
        lambda anchors, rows, count: add_up(anchors, rows, center, count), problem, ids
    )


def _held_out_errors(
    problem: Problem, of: Moments, ids: Int[np.ndarray, " held_out"]
) -> Float[np.ndarray, " strength"]:
    """The squared error on the held-out rows for each strength, relative to the mean row's."""
    spectrum = _spectrum(of)
    errors = [
        np.asarray(_squared_errors(of, spectrum, anchors, rows, len(chosen)), np.float64)
        for chosen, anchors, rows in known_blocks(problem, ids)
    ]
    total = np.sum(errors, axis=0)
    return total[1:] / total[0]


def _mapped(
    problem: Problem,
    of: Moments,
    inverse: Float[Array, "feature feature"],
    facts: dict[str, float],
) -> Prediction:
    unknown, mapping = zero_rows(problem.queries), make_map(of, inverse)

    def contributors(k: int) -> Contribution:
        center, keys = np.asarray(of.feature_mean), np.asarray(inverse)
        centred = problem._replace(
            queries=problem.queries - center, anchors=(problem.anchors - center) @ keys
        )
        return contributors_by(linear_weights, centred)(k)

    return Prediction(
        (len(problem.queries), problem.rows.shape[1]),
        in_blocks(lambda queries: apply_map(queries, of, mapping), problem, unknown),
        {"mean": unknown},
        facts,
        contributors,
    )


def linear_weights(
    queries: Float[Array, "query feature"], keys: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The weight of every anchor, from centred queries and keys (a G)."""
    return matmul(queries, keys.T)
