"""Similarity, weights, combination: for a block of queries at a time, on every device.

No array of queries x anchors exists: each device takes its share of some queries in blocks of
`BLOCK_ROWS`, holds the similarities of one block, and keeps only the rows that come out.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from clp_jax.mesh import replicated
from clp_jax.transfer.problem import Contributors, Prediction, Problem
from clp_jax.transfer.rows import in_blocks, matmul, row_sharding, shard_rows

BLOCK_ROWS = 256


class Sparse(NamedTuple):
    """A few weights a query, and the anchors that they belong to."""

    weights: Float[Array, "query k"]
    ids: Int[Array, "query k"]


Weights = Sparse | Float[Array, "query anchor"]
Weigh = Callable[[Float[Array, "query feature"], Float[Array, "anchor feature"]], Weights]


def weighted(weigh: Weigh, problem: Problem, unknown: Bool[np.ndarray, " query"]) -> Prediction:
    """The anchors' rows, combined for every query with the weights that ``weigh`` gives them.

    Args:
        weigh: from a block of queries and all anchors to weights; a function of a module, since
            a program is compiled for each.
        problem: queries, anchors and their rows.
        unknown: queries of which ``weigh`` knows nothing: they get the mean row.
    """

    def blocks():
        whole = replicated(problem.mesh)
        anchors, rows, places = (
            None if table is None else jax.device_put(table, whole)
            for table in (problem.anchors, problem.rows, problem.places)
        )

        def compute(queries: Array) -> Array:
            return _in_blocks(
                queries, anchors, rows, places, weigh=weigh, largest=None, mesh=problem.mesh
            )

        yield from in_blocks(compute, problem, unknown)()

    return Prediction(
        (len(problem.queries), problem.rows.shape[1]),
        blocks,
        {"mean": unknown},
        contributors=contributors_by(weigh, problem),
    )


def contributors_by(weigh: Weigh, problem: Problem) -> Contributors:
    """A function that finds the anchors to which ``weigh`` gives the largest weights, by size."""

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
        found = _in_blocks(
            shard_rows(problem.queries, problem.mesh),
            jax.device_put(problem.anchors, replicated(problem.mesh)),
            None,
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
    rows: Float[Array, "known dim"] | None,
    places: Int[Array, " anchor"] | None,
    *,
    weigh: Weigh,
    largest: int | None,
    mesh: Mesh,
):
    """Combined rows, or the ``largest`` weights where a number is given."""

    def of_device(queries: Array, anchors: Array, rows: Array | None, places: Array | None):
        padding = -len(queries) % BLOCK_ROWS
        blocks = jnp.pad(queries, ((0, padding), (0, 0))).reshape(-1, BLOCK_ROWS, queries.shape[1])

        def of_block(block: Array):
            weights = weigh(block, anchors)
            return (
                _combine(weights, rows, places) if largest is None else _largest(weights, largest)
            )

        results = jax.lax.map(of_block, blocks)
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[: len(queries)], results)

    spread, whole = row_sharding(mesh).spec, PartitionSpec()
    mapped = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(spread, whole, whole, whole),
        out_specs=spread,
        check_vma=False,
    )
    return mapped(queries, anchors, rows, places)


def _combine(
    weights: Weights,
    rows: Float[Array, "known dim"] | None,
    places: Int[Array, " anchor"] | None,
) -> Float[Array, "query dim"]:
    """The weighted rows; where the table has others between them, those weigh nothing."""
    assert rows is not None
    if isinstance(weights, Sparse):
        ids = weights.ids if places is None else places[weights.ids]
        return jnp.einsum("qk,qkd->qd", weights.weights, rows[ids], precision="highest")
    if places is not None:
        weights = jnp.zeros((len(weights), len(rows))).at[:, places].set(weights)
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
