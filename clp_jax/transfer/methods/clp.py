r"""CLP-Transfer in its closed form (Ostendorff & Rehm 2023, arXiv 2301.09626).

A token m that the source lacks gets a combination of the source rows of the shared tokens O,
weighted by the helper's similarity of m to each of them:

    E[m] = sum_o w_o E[o] / sum_o w_o      with  w_o = cos(H[m], H[o])

The weights are linear in H[m], so no |M| x |O| matrix of similarities is needed. With U the rows
H[o] / |H[o]| and h = H[m], whose own norm cancels, the sums over O come first:

    sum_o w_o E[o] = h (U^T E)             one d_h x d_s matrix
    sum_o w_o      = h (U^T 1)             one d_h vector

This is the same function at the cost of two thin matrix products. The rows of every table are split
over all devices of the mesh; the only communication is the addition of the d_h-sized sums.

The weights are signed. Where they cancel, the divisor nears zero and the row explodes; where most
are negative, the signs flip and the least similar tokens count most. The natural measure is
|sum w| / sum |w|, but its sum of absolute values needs all |M| x |O| similarities. The Euclidean
norm does not: |w|_2^2 = h G h^T / |h|^2 with the Gram matrix G = U^T U. So the coherence of a row,
which the manifest ``transfer.json`` calls ``condition``, is

    c = sum w / (sqrt(|O|) |w|_2)          in [-1, 1]

Larger is better. By Cauchy-Schwarz sum |w| <= sqrt(|O|) |w|_2, so |c| is at most |sum w| / sum |w|.
c is 1 when all weights are equal, near 0 when they cancel, and negative when the signs flip. It
also bounds the result: for c > 0 the norm of the new row is at most (root mean square of the shared
rows' norms) / c.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.transfer.blockwise import (
    contributors_by,
    in_blocks,
    matmul,
    row_slices,
    shard_rows,
    unit_rows,
)
from clp_jax.transfer.interface import Contribution, Prediction, Problem
from clp_jax.transfer.methods.similarity import Nearest, clp_topk, cosines
from clp_jax.transfer.sums import Sums, add_blocks, sums_of

MINIMUM_COHERENCE = 0.5
"""Queries with a lower coherence get a fallback instead of the formula.

At this limit no row's norm exceeds twice the root mean square of the shared rows' norms. The loss
of small transferred models on German text before any training (docs/lab.md) is 130 and 192 nats per
token without a limit, 7.9 and 10.4 with 0.1, 7.3 and 10.0 with 0.5, and 6.9 and 9.7 with top-k
softmax for every row. Large published models are near 1, where the formula is safe.
"""


@jax.jit
def unit_sums(
    overlap_helper: Float[Array, "shared helper_dim"],
    overlap_source: Float[Array, "shared source_dim"],
) -> Sums:
    """U^T 1, U^T U and U^T E over some shared tokens: the sums of unit helper rows."""
    return sums_of(unit_rows(overlap_helper), overlap_source)


@jax.jit
def row_coherence(
    missing_helper: Float[Array, "missing helper_dim"],
    of: Sums,
    overlap_count: int | Int[Array, ""],
) -> Float[Array, " missing"]:
    """The coherence c of missing tokens, from the sums over all |O| shared tokens.

    It is 0 where all weights are zero; the formula then has no finite value.
    """
    squares = jnp.sum(matmul(missing_helper, of.squares) * missing_helper, axis=1)
    norm_bound = jnp.sqrt(overlap_count * jnp.maximum(squares, 0))
    return jnp.where(norm_bound == 0, 0, matmul(missing_helper, of.features) / norm_bound)


@jax.jit
def combine(
    missing_helper: Float[Array, "missing helper_dim"], of: Sums
) -> Float[Array, "missing source_dim"]:
    """The rows of missing tokens, float32, from the sums over all shared tokens."""
    return matmul(missing_helper, of.products) / matmul(missing_helper, of.features)[:, None]


def clp(problem: Problem) -> Prediction:
    """CLP-Transfer's formula where its weights are coherent, top-k softmax elsewhere."""
    of, coherence = _fit(problem)
    ill = ~(coherence >= MINIMUM_COHERENCE)
    formula = _by_formula(problem, of, coherence, np.flatnonzero(~ill))
    if not ill.any():
        return formula
    guarded = problem._replace(queries=problem.queries[ill])
    guard, places = clp_topk(guarded), np.flatnonzero(ill)
    of_formula = contributors_by(cosine_weights, problem)
    of_guard = contributors_by(Nearest(), guarded)
    unknown = np.zeros_like(ill)
    unknown[ill] = guard.fallback["mean"]

    def blocks():
        yield from formula.blocks()
        for positions, rows in guard.blocks():
            yield places[positions], rows

    def contributors(k: int) -> Contribution:
        ids, weights = of_formula(k)
        near, shares = of_guard(k)
        weights[ill] = 0
        ids[ill, : near.shape[1]], weights[ill, : near.shape[1]] = near, shares
        return ids, weights

    return replace(
        formula,
        blocks=blocks,
        fallback={"top-k softmax": ill & ~unknown, "mean": unknown},
        contributors=contributors,
    )


def clp_unguarded(problem: Problem) -> Prediction:
    """CLP-Transfer's formula for every query, whatever its coherence.

    The devices never hold a whole table, only the sums and one block of rows at a time. The
    fact ``condition`` is the coherence c of each query.
    """
    of, coherence = _fit(problem)
    return _by_formula(problem, of, coherence, np.arange(len(coherence)))


def _fit(problem: Problem) -> tuple[Sums, Float[np.ndarray, " query"]]:
    """The sums over all anchors, and the coherence of every query."""
    ids = np.arange(len(problem.anchors))
    of = add_blocks(lambda anchors, rows, _: unit_sums(anchors, rows), problem, ids)
    coherence = np.empty(len(problem.queries), np.float32)
    for part in row_slices(len(coherence)):
        queries = problem.queries[part]
        found = row_coherence(shard_rows(queries, problem.mesh), of, len(ids))
        coherence[part] = np.asarray(found)[: len(queries)]
    return of, coherence


def _by_formula(
    problem: Problem,
    of: Sums,
    coherence: Float[np.ndarray, " query"],
    positions: Int[np.ndarray, " chosen"],
) -> Prediction:
    return Prediction(
        (len(problem.queries), problem.rows.shape[1]),
        in_blocks(lambda queries: combine(queries, of), problem, positions=positions),
        facts={"condition": coherence},
        contributors=contributors_by(cosine_weights, problem),
    )


def cosine_weights(
    queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The formula's weights, computed explicitly."""
    weights = cosines(queries, anchors)
    return weights / weights.sum(axis=1, keepdims=True)
