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

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.transfer.engine import contributors_by
from clp_jax.transfer.problem import Prediction, Problem
from clp_jax.transfer.rows import matmul, row_slices, shard_rows, unit_rows
from clp_jax.transfer.similar import clp_topk, cosines, nearest

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
    total: Float[Array, "helper_dim"]
    gram: Float[Array, "helper_dim helper_dim"]


class Combination(NamedTuple):
    """Rows combined from the shared tokens' source rows, and the condition c of each."""

    rows: Float[Array, "missing source_dim"]
    condition: Float[Array, "missing"]


@jax.jit
def moments(
    overlap_helper: Float[Array, "shared helper_dim"],
    overlap_source: Float[Array, "shared source_dim"],
) -> Moments:
    """The sums over some shared tokens, float32; rows of zeros in both tables add nothing."""
    unit = unit_rows(overlap_helper)
    return Moments(matmul(unit.T, overlap_source), unit.sum(axis=0), matmul(unit.T, unit))


@jax.jit
def combine(
    missing_helper: Float[Array, "missing helper_dim"],
    of: Moments,
    overlap_count: int | Int[Array, ""],
) -> Combination:
    """The rows of missing tokens, float32, from the sums over all |O| shared tokens.

    A row whose weights are all zero has condition 0 and no finite value.
    """
    weight_sum = matmul(missing_helper, of.total)
    squares = jnp.sum(matmul(missing_helper, of.gram) * missing_helper, axis=1)
    norm_bound = jnp.sqrt(overlap_count * jnp.maximum(squares, 0))
    return Combination(
        rows=matmul(missing_helper, of.products) / weight_sum[:, None],
        condition=jnp.where(norm_bound == 0, 0, weight_sum / norm_bound),
    )


def clp(problem: Problem) -> Prediction:
    """CLP-Transfer's formula where it is well-conditioned, the mean of the nearest elsewhere."""
    formula, of_formula = clp_unguarded(problem), contributors_by(cosine_weights, problem)
    ill = ~(formula.facts["condition"] >= MINIMUM_CONDITION)
    if not ill.any():
        return formula
    guarded = problem._replace(queries=problem.queries[ill])
    guard, of_guard = clp_topk(guarded), contributors_by(nearest, guarded)
    formula.rows[ill] = guard.rows
    unknown = np.zeros_like(ill)
    unknown[ill] = guard.fallback["mean"]

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
        ids, weights = of_formula(k)
        near, shares = of_guard(k)
        weights[ill] = 0
        ids[ill, : near.shape[1]], weights[ill, : near.shape[1]] = near, shares
        return ids, weights

    return formula._replace(
        fallback={"top-k softmax": ill & ~unknown, "mean": unknown}, contributors=contributors
    )


def clp_unguarded(problem: Problem) -> Prediction:
    """CLP-Transfer's formula for every query, whatever its condition.

    No table is on the devices as a whole: beside inputs and output there are the moments and one
    block of rows. The fact ``condition`` is the condition c of each query.
    """
    queries, known = problem.queries, (problem.anchors, problem.rows)
    of = None
    for part in row_slices(len(problem.anchors)):
        block = moments(*(shard_rows(table[part], problem.mesh) for table in known))
        of = jax.block_until_ready(block if of is None else jax.tree.map(jnp.add, of, block))
    rows = np.empty((len(queries), problem.rows.shape[1]), np.float32)
    condition = np.empty(len(queries), np.float32)
    for part in row_slices(len(queries)):
        found = combine(shard_rows(queries[part], problem.mesh), of, len(problem.anchors))
        real = len(queries[part])
        rows[part], condition[part] = (np.asarray(table)[:real] for table in found)
    return Prediction(
        rows=rows,
        facts={"condition": condition},
        contributors=contributors_by(cosine_weights, problem),
    )


def cosine_weights(
    queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
) -> Float[Array, "query anchor"]:
    """The formula's weights, written out."""
    weights = cosines(queries, anchors)
    return weights / weights.sum(axis=1, keepdims=True)
