r"""Linear maps from the space of the features to that of the source's rows, fitted to the anchors.

With A and Y the anchors' features and rows, each minus its mean, all maps are W = G A^T Y:

* ridge: minimises |A W - Y|^2 + l |W|^2, so G = (A^T A + l I)^-1. Each anchor counts in means and
  products by its weight, a power of how often the text has it;
* least squares, as SAVA has it: ridge with l = 0, all anchors equal. FLOR's code subtracts no mean;
* Procrustes: the rotation that best maps A onto Y, times the best scale. With the singular value
  decomposition A^T Y = U S V^T, W = s U V^T, so G = s U S^-1 U^T and s = sum(S) / |A|^2.

A query q gets the row (q - mean(A)) W + mean(Y). The row is also linear in the anchors' rows:
anchor o has the weight w_o (q - mean(A)) G a_o, in addition to the shared mean.

**Ridge's strength.** The larger l, the closer the rows come together, which costs a model more than
the squared error shows. With real weights, the error falls by 1% from the weakest strength to the
best, 0.1, where the transferred model needs 0.09 bits per byte more (docs/lab.md).
So ridge takes the weakest strength whose error on held-out anchors is within 2% of the least.

Its equations are solved on the host in float64, once for each strength.
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
    row_slices,
    zero_rows,
)
from clp_jax.transfer.interface import Contribution, Prediction, Problem
from clp_jax.transfer.sums import Sums, add_blocks, eigen, known_blocks, sums_of
from clp_jax.transfer.table import row_norms

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 3))
"""Candidates for ridge's regularisation l, in units of tr(A^T A) / d, a feature's mean square."""

HELD_OUT = 10
"""One anchor in this many is held out to choose the strength."""

NEARLY = 1.02
"""A strength is as good as the best if its error is at most this many times the best's."""

OUTLIER = 3.0
"""An anchor is taken as untrained if a norm differs from the median by more than this factor."""


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
    weights: Float[Array, " anchor"],
    center: Center,
) -> Sums:
    """The weighted sums over anchors minus the center; padding has weight zero."""
    return sums_of(anchors - center.features[None], rows - center.rows[None], weights[:, None])


@jax.jit
def about_means(of: Sums, center: Center, weight: float | Float[Array, ""]) -> Moments:
    """The moments of the summed anchors, whose weights add up to ``weight``, about their means."""
    a, y = of.features / weight, of.rows / weight
    return Moments(
        a + center.features,
        y + center.rows,
        of.squares - weight * jnp.outer(a, a),
        of.products - weight * jnp.outer(a, y),
    )


@jax.jit
def make_map(
    of: Moments, inverse: Float[np.ndarray | Array, "feature feature"]
) -> Float[Array, "feature dim"]:
    """W for a given G."""
    return matmul(inverse, of.products)


@jax.jit
def apply_map(
    queries: Float[Array, "query feature"], of: Moments, mapping: Float[Array, "feature dim"]
) -> Float[Array, "query dim"]:
    """The rows of the queries."""
    return matmul(queries - of.feature_mean[None], mapping) + of.row_mean[None]


def ridge_inverse(of: Moments, strength: float) -> Float[np.ndarray, "feature feature"]:
    """Ridge's G, for a strength in units of the mean square of a feature; 0 is least squares.

    If it is as small as the errors of the sums, directions in which the anchors do not vary are
    dropped, so that the map is the smallest.
    """
    squares, rounding = np.asarray(of.features, np.float64), np.finfo(np.float32).eps
    penalty = strength * np.trace(squares) / len(squares)
    if penalty > rounding * np.linalg.norm(squares):
        return np.linalg.inv(squares + penalty * np.eye(len(squares))).astype(np.float32)
    values, vectors = eigen(squares)
    varied = values > values.max() * len(values) * rounding
    scaled = np.where(varied, values, 1) + penalty
    return ((vectors * np.where(varied, 1 / scaled, 0)) @ vectors.T).astype(np.float32)


@jax.jit
def procrustes_inverse(of: Moments) -> Float[Array, "feature feature"]:
    """Procrustes' G; directions without correlation between features and rows are dropped."""
    left, values, _ = jnp.linalg.svd(of.products, full_matrices=False)
    safe = values > values[0] * 1e-6
    scale = values.sum() / jnp.maximum(jnp.trace(of.features), jnp.finfo(values.dtype).tiny)
    inverse = jnp.where(safe, 1 / jnp.where(safe, values, 1), 0)
    return scale * matmul(left * inverse[None], left.T)


@jax.jit
def _squared_errors(
    of: Moments,
    mapping: Float[Array, "feature dim"],
    anchors: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"],
) -> Float[Array, " anchor"]:
    """The squared error of each row."""
    return jnp.sum((apply_map(anchors, of, mapping) - rows) ** 2, axis=1)


class LinearMap(NamedTuple):
    """A fitted map.

    Attributes:
        of: the moments of the anchors that it was fitted to.
        inverse: G.
        weights: the weight of each of the problem's anchors; 0 for those left out.
        facts: what was chosen, for the manifest.
    """

    of: Moments
    inverse: Float[np.ndarray | Array, "feature feature"]
    weights: Float[np.ndarray, " anchor"]
    facts: dict[str, float]

    @property
    def chosen(self) -> dict[str, float]:
        """The constant that was chosen, for maps with other anchors."""
        return {"strength": self.facts["strength"]} if "strength" in self.facts else {}

    def keys(self, problem: Problem) -> Float[np.ndarray, "anchor feature"]:
        """With a centred query, these give the weight of each anchor's row in the query's."""
        centred = problem.anchors - np.asarray(self.of.feature_mean)
        return centred @ np.asarray(self.inverse) * self.weights[:, None]

    def predict(self, problem: Problem) -> Prediction:
        """The rows of the problem's queries."""
        of, unknown = self.of, zero_rows(problem.queries)
        mapping = make_map(of, self.inverse)

        def contributors(k: int) -> Contribution:
            queries = problem.queries - np.asarray(of.feature_mean)
            centred = problem._replace(queries=queries, anchors=self.keys(problem))
            return contributors_by(linear_weights, centred)(k)

        return Prediction(
            (len(problem.queries), problem.rows.shape[1]),
            in_blocks(lambda queries: apply_map(queries, of, mapping), problem, unknown),
            {"mean": unknown},
            self.facts,
            contributors,
            self.chosen,
        )


def ridge(
    problem: Problem, *, strength: float | None = None, count_exponent: float = 0.5
) -> Prediction:
    """Least squares from features to rows, regularised, with weighted anchors."""
    return fit_ridge(problem, strength, count_exponent).predict(problem)


def fit_ridge(problem: Problem, strength: float | None, count_exponent: float) -> LinearMap:
    """Fit ridge's map to the anchors that look trained.

    Args:
        problem: the anchors.
        strength: the regularisation, in units of the mean square of a feature; None chooses it by
            held-out anchors. With too few anchors to hold one out, that is the strongest.
        count_exponent: an anchor's weight is its frequency in the text to the power of this.
    """
    kept = trained_anchors(problem)
    weights = np.zeros(len(problem.anchors), np.float32)
    weights[kept] = 1
    if problem.frequencies is not None:
        weights[kept] = problem.frequencies[kept] ** count_exponent
        weights /= weights.mean()
    center = _center(problem)
    held_out = kept[HELD_OUT - 1 :: HELD_OUT] if strength is None else kept[:0]
    sums = _sums(problem, center, weights, np.setdiff1d(kept, held_out))
    if len(held_out):
        of = about_means(sums, center, weights.sum() - weights[held_out].sum())
        facts = _choose_strength(problem, of, weights, held_out)
        sums = jax.tree.map(jnp.add, sums, _sums(problem, center, weights, held_out))
    else:
        facts = {"strength": STRENGTHS[-1] if strength is None else strength}
    of = about_means(sums, center, weights.sum())
    inverse = ridge_inverse(of, facts["strength"])
    return LinearMap(of, inverse, weights, facts | {"left_out": len(weights) - len(kept)})


def trained_anchors(problem: Problem) -> Int[np.ndarray, " trained"]:
    """The anchors whose features and rows have a norm near the usual one.

    A row that was never trained is often far shorter or longer than the others.
    """
    trained = np.ones(len(problem.anchors), bool)
    of_rows = row_norms(problem.rows)
    if problem.places is not None:
        of_rows = of_rows[problem.places]
    for norms in (row_norms(problem.anchors), of_rows):
        usual = np.median(norms)
        trained &= (norms * OUTLIER >= usual) & (norms <= usual * OUTLIER)
    return np.flatnonzero(trained) if trained.any() else np.arange(len(trained))


def sava(problem: Problem) -> Prediction:
    """Plain least squares from features to rows."""
    of = moments(problem)
    return _equal(problem, of, ridge_inverse(of, 0.0))


def flor(problem: Problem) -> Prediction:
    """Plain least squares through the origin: no mean is subtracted."""
    features, rows = problem.anchors.shape[1], problem.rows.shape[1]
    origin = Center(np.zeros(features, np.float32), np.zeros(rows, np.float32))
    weights, ids = np.ones(len(problem.anchors), np.float32), np.arange(len(problem.anchors))
    sums = _sums(problem, origin, weights, ids)
    of = Moments(jnp.zeros(features), jnp.zeros(rows), sums.squares, sums.products)
    return _equal(problem, of, ridge_inverse(of, 0.0))


def procrustes(problem: Problem) -> Prediction:
    """The rotation and the scale that best map the features onto the rows."""
    of = moments(problem)
    return _equal(problem, of, procrustes_inverse(of))


def moments(problem: Problem) -> Moments:
    """The moments of all anchors, each of weight one."""
    center, ids = _center(problem), np.arange(len(problem.anchors))
    sums = _sums(problem, center, np.ones(len(ids), np.float32), ids)
    return about_means(sums, center, float(len(ids)))


def _equal(
    problem: Problem, of: Moments, inverse: Float[np.ndarray | Array, "feature feature"]
) -> Prediction:
    weights = np.ones(len(problem.anchors), np.float32)
    return LinearMap(of, inverse, weights, {}).predict(problem)


def _center(problem: Problem) -> Center:
    return Center(problem.anchors.mean(axis=0, dtype=np.float64).astype(np.float32), problem.mean)


def _sums(
    problem: Problem,
    center: Center,
    weights: Float[np.ndarray, " anchor"],
    ids: Int[np.ndarray, " chosen"],
) -> Sums:
    """The weighted sums over some anchors, minus the center."""

    def of_block(
        anchors: Float[Array, "padded feature"],
        rows: Float[Array, "padded dim"],
        chosen: Int[np.ndarray, " part"],
    ) -> Sums:
        padded = np.pad(weights[chosen], (0, len(anchors) - len(chosen)))
        return add_up(anchors, rows, padded, center)

    return add_blocks(of_block, problem, ids)


def _choose_strength(
    problem: Problem,
    of: Moments,
    weights: Float[np.ndarray, " anchor"],
    ids: Int[np.ndarray, " held_out"],
) -> dict[str, float]:
    """The weakest strength that is nearly as good as the best on held-out anchors, and its error.

    The error is the weighted mean square relative to the mean row's.
    """
    inverses = (ridge_inverse(of, strength) for strength in STRENGTHS)
    maps = [jnp.zeros_like(of.products), *(make_map(of, inverse) for inverse in inverses)]
    shares, sums = weights[ids] / weights[ids].sum(), np.zeros(len(maps))
    for place, (chosen, anchors, rows) in zip(
        row_slices(len(ids)), known_blocks(problem, ids), strict=True
    ):
        for i, mapping in enumerate(maps):
            errors = np.asarray(_squared_errors(of, mapping, anchors, rows), np.float64)
            sums[i] += errors[: len(chosen)] @ shares[place]
    base, *means = sums.tolist()
    best = next(i for i, mean in enumerate(means) if mean <= NEARLY * min(means))
    return {"strength": STRENGTHS[best], "held_out_error": means[best] / base}


def linear_weights(
    queries: Float[Array, "query feature"], keys: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The weight of every anchor, from centred queries and keys."""
    return matmul(queries, keys.T)
