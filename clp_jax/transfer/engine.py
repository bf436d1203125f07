"""Similarity, weights, combination: for a block of queries at a time, on every device.

No array of queries x anchors exists: each device takes its share of the queries in blocks of
`BLOCK_ROWS`, holds the similarities of one block, and keeps only the rows that come out.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from clp_jax.mesh import replicated
from clp_jax.transfer.problem import Contributors, Problem
from clp_jax.transfer.rows import matmul, row_sharding, shard_rows

BLOCK_ROWS = 256


class Sparse(NamedTuple):
    """A few weights a query, and the anchors that they belong to."""

    weights: Float[Array, "query k"]
    ids: Int[Array, "query k"]


Weights = Sparse | Float[Array, "query anchor"]
Weigh = Callable[[Float[Array, "query feature"], Float[Array, "anchor feature"]], Weights]


def weighted_rows(weigh: Weigh, problem: Problem) -> Float[np.ndarray, "query dim"]:
    """The anchors' rows, combined for every query with the weights that ``weigh`` gives them.

    Args:
        weigh: from a block of queries and all anchors to weights; a function of a module, since
            a program is compiled for each.
        problem: queries, anchors and their rows.
    """
    tables = (jax.device_put(t, replicated(problem.mesh)) for t in (problem.anchors, problem.rows))
    queries = shard_rows(problem.queries, problem.mesh)
    rows = _in_blocks(queries, *tables, weigh=weigh, largest=None, mesh=problem.mesh)
    return np.array(rows)[: len(problem.queries)]


def contributors_by(weigh: Weigh, problem: Problem) -> Contributors:
    """A function that finds the anchors to which ``weigh`` gives the largest weights, by size."""

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
        found = _in_blocks(
            shard_rows(problem.queries, problem.mesh),
            jax.device_put(problem.anchors, replicated(problem.mesh)),
            None,
            weigh=weigh,
            largest=min(k, len(problem.anchors)),
            mesh=problem.mesh,
        )
        ids, weights = (np.array(table)[: len(problem.queries)] for table in found)
        return ids, weights

    return contributors


@partial(jax.jit, static_argnames=("weigh", "largest", "mesh"))
def _in_blocks(
    queries: Float[Array, "query feature"],
    anchors: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"] | None,
    *,
    weigh: Weigh,
    largest: int | None,
    mesh: Mesh,
):
    """Combined rows, or the ``largest`` weights where a number is given."""

    def of_device(queries: Array, anchors: Array, rows: Array | None):
        padding = -len(queries) % BLOCK_ROWS
        blocks = jnp.pad(queries, ((0, padding), (0, 0))).reshape(-1, BLOCK_ROWS, queries.shape[1])

        def of_block(block: Array):
            weights = weigh(block, anchors)
            return _combine(weights, rows) if largest is None else _largest(weights, largest)

        results = jax.lax.map(of_block, blocks)
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[: len(queries)], results)

    spread, whole = row_sharding(mesh).spec, PartitionSpec()
    mapped = jax.shard_map(
        of_device, mesh=mesh, in_specs=(spread, whole, whole), out_specs=spread, check_vma=False
    )
    return mapped(queries, anchors, rows)


def _combine(
    weights: Weights, rows: Float[Array, "anchor dim"] | None
) -> Float[Array, "query dim"]:
    assert rows is not None
    if isinstance(weights, Sparse):
        picked = rows[weights.ids]
        return jnp.einsum("qk,qkd->qd", weights.weights, picked, precision="highest")
    return matmul(weights, rows)


def _largest(weights: Weights, k: int) -> tuple[Int[Array, "query k"], Float[Array, "query k"]]:
    if isinstance(weights, Sparse):
        order = jnp.argsort(-jnp.abs(weights.weights), axis=1)[:, :k]
        return (
            jnp.take_along_axis(weights.ids, order, 1),
            jnp.take_along_axis(weights.weights, order, 1),
        )
    _, ids = jax.lax.top_k(jnp.abs(weights), k)
    return ids, jnp.take_along_axis(weights, ids, 1)
