r"""CLP-Transfer in its closed form (Ostendorff & Rehm 2023, arXiv 2301.09626).

A token m that the source lacks gets a combination of the source rows of the shared tokens O,
weighted by how near the helper puts m to each of them:

    E[m] = sum_o w_o E[o] / sum_o w_o      with  w_o = cos(H[m], H[o])

The weights are linear in H[m], so no |M| x |O| matrix of similarities is needed. With U the rows
H[o] / |H[o]| and h = H[m], whose own norm cancels, the sums over O can be done first:

    sum_o w_o E[o] = h (U^T E)             one d_h x d_s matrix
    sum_o w_o      = h (U^T 1)             one d_h vector

This is the same function at the cost of two thin matrix products. Rows of every table lie over all
devices of the mesh, and the only communication is the sum of the d_h-sized moments.

The conditioning. The weights are signed, and where they cancel the divisor nears zero and the row
explodes; where most are negative the signs flip and the least similar tokens count most. The
natural measure is |sum w| / sum |w|, but its sum of absolute values needs all |M| x |O|
similarities. The Euclidean norm does not: |w|_2^2 = h G h^T / |h|^2 with the Gram matrix G = U^T U.
So the condition of a row is

    c = sum w / (sqrt(|O|) |w|_2)          in [-1, 1]

By Cauchy-Schwarz sum |w| <= sqrt(|O|) |w|_2. Hence |c| is at most |sum w| / sum |w|; it is 1 when
all weights are equal, near 0 when they cancel, negative when the signs flip. And it bounds the
result: for c > 0 the new row is no longer than (root mean square of the shared rows' norms) / c.
"""

from dataclasses import replace
from functools import partial, reduce
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
    shard_rows,
    unit_rows,
)
from clp_jax.transfer.methods.interface import Prediction, Problem
from clp_jax.transfer.methods.similarity import clp_topk, cosines, nearest

MINIMUM_CONDITION = 0.5
"""Queries whose condition is lower are not combined by the formula.

From here on no row is more than twice as long as the source's rows are in the root mean square.
Measured by the loss of small transferred models on German text before any training (docs/lab.md):
without a limit 130 and 192 nats a token, with 0.1 7.9 and 10.4, with 0.5 7.3 and 10.0, with top-k
softmax for every row 6.9 and 9.7. Large published models lie near 1, where the formula is safe.
"""


class Moments(NamedTuple):
    """The sums over shared tokens: U^T E, U^T 1 and U^T U."""

    products: Float[Array, "helper_dim source_dim"]
    total: Float[Array, " helper_dim"]
    gram: Float[Array, "helper_dim helper_dim"]


@jax.jit
def moments(
    overlap_helper: Float[Array, "shared helper_dim"],
    overlap_source: Float[Array, "shared source_dim"],
) -> Moments:
    """The sums over some shared tokens, float32; rows of zeros in both tables add nothing."""
    unit = unit_rows(overlap_helper)
    return Moments(matmul(unit.T, overlap_source), unit.sum(axis=0), matmul(unit.T, unit))


@jax.jit
def conditions(
    missing_helper: Float[Array, "missing helper_dim"],
    of: Moments,
    overlap_count: int | Int[Array, ""],
) -> Float[Array, " missing"]:
    """The condition c of missing tokens, from the sums over all |O| shared tokens.

    It is 0 where all weights are zero; such a row has no finite value.
    """
    squares = jnp.sum(matmul(missing_helper, of.gram) * missing_helper, axis=1)
    norm_bound = jnp.sqrt(overlap_count * jnp.maximum(squares, 0))
    return jnp.where(norm_bound == 0, 0, matmul(missing_helper, of.total) / norm_bound)


@jax.jit
def combine(
    missing_helper: Float[Array, "missing helper_dim"], of: Moments
) -> Float[Array, "missing source_dim"]:
    """The rows of missing tokens, float32, from the sums over all shared tokens."""
    return matmul(missing_helper, of.products) / matmul(missing_helper, of.total)[:, None]


def clp(problem: Problem) -> Prediction:
    """CLP-Transfer's formula where it is well-conditioned, the mean of the nearest elsewhere."""
    of, condition = _fit(problem)
    ill = ~(condition >= MINIMUM_CONDITION)
    formula = _by_formula(problem, of, condition, np.flatnonzero(~ill))
    if not ill.any():
        return formula
    guarded = problem._replace(queries=problem.queries[ill])
    guard, places = clp_topk(guarded), np.flatnonzero(ill)
    of_formula = contributors_by(cosine_weights, problem)
    of_guard = contributors_by(nearest, guarded)
    unknown = np.zeros_like(ill)
    unknown[ill] = guard.fallback["mean"]

    def blocks():
        yield from formula.blocks()
        for positions, rows in guard.blocks():
            yield places[positions], rows

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
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
    """CLP-Transfer's formula for every query, whatever its condition.

    No table is on the devices as a whole: beside inputs and output there are the moments and one
    block of rows. The fact ``condition`` is the condition c of each query.
    """
    of, condition = _fit(problem)
    return _by_formula(problem, of, condition, np.arange(len(condition)))


def _fit(problem: Problem) -> tuple[Moments, Float[np.ndarray, " query"]]:
    """The sums over all anchors, and the condition of every query."""
    ids = np.arange(len(problem.anchors))
    known = ((problem.anchors[part], problem.rows_of(ids[part])) for part in row_slices(len(ids)))
    blocks = (
        jax.block_until_ready(moments(*(shard_rows(table, problem.mesh) for table in tables)))
        for tables in known
    )
    of = reduce(partial(jax.tree.map, jnp.add), blocks)
    condition = np.empty(len(problem.queries), np.float32)
    for part in row_slices(len(condition)):
        queries = problem.queries[part]
        found = conditions(shard_rows(queries, problem.mesh), of, len(ids))
        condition[part] = np.asarray(found)[: len(queries)]
    return of, condition


def _by_formula(
    problem: Problem,
    of: Moments,
    condition: Float[np.ndarray, " query"],
    positions: Int[np.ndarray, " chosen"],
) -> Prediction:
    return Prediction(
        (len(problem.queries), problem.rows.shape[1]),
        in_blocks(lambda queries: combine(queries, of), problem, positions=positions),
        facts={"condition": condition},
        contributors=contributors_by(cosine_weights, problem),
    )


def cosine_weights(
    queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The formula's weights, written out."""
    weights = cosines(queries, anchors)
    return weights / weights.sum(axis=1, keepdims=True)
