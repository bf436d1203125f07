"""Blockwise computation of new rows, spread over all devices.

Tables are placed on the devices `PLACED_ROWS` rows at a time. No array of queries x anchors is
ever built: each device works through its share of the queries in blocks of `BLOCK_ROWS`, holds the
similarities of one block, and keeps only the resulting rows.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from clp_jax.mesh import replicated
from clp_jax.transfer.interface import Blocks, Contribution, Contributors, Prediction, Problem

# Full float32: by default, accelerators round the operands of a product to bfloat16 or tf32.
matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


PLACED_ROWS = 4096
"""Rows placed on the devices at a time, where the whole table is not needed there."""

BLOCK_ROWS = 256
"""Rows that a device works on at a time."""

ALIGNMENT = 64
"""Bytes. A CPU device shares an array that starts at a multiple of this and copies any other."""


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over all devices, whatever the names of the mesh axes."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def shard_rows(table: Float[np.ndarray, "rows dim"], mesh: Mesh) -> Float[Array, "padded dim"]:
    """Split ``table`` over all devices of ``mesh``, padded with zero rows to whole blocks.

    Tables of nearly the same length so share a program.
    """
    padding = -len(table) % (BLOCK_ROWS * mesh.size)
    if padding:
        table = np.pad(table, ((0, padding), (0, 0)))
    return jax.device_put(table, row_sharding(mesh))


def row_slices(count: int) -> Iterator[slice]:
    """Slices of at most `PLACED_ROWS` rows that together cover ``count`` rows.

    They are nearly equal, so that padded to whole blocks they share a program.
    """
    parts = -(-count // PLACED_ROWS)
    return (slice(count * i // parts, count * (i + 1) // parts) for i in range(parts))


def empty_rows(count: int, dim: int) -> Float[np.ndarray, "count dim"]:
    """An uninitialised float32 table, aligned so that a CPU device can read it without a copy."""
    memory = np.empty(count * dim * 4 + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + count * dim * 4].view(np.float32).reshape(count, dim)


def in_blocks(
    compute: Callable[[Float[Array, "part feature"]], Float[Array, "part dim"]],
    problem: Problem,
    unknown: Bool[np.ndarray, " query"] | None = None,
    positions: Int[np.ndarray, " chosen"] | None = None,
) -> Blocks:
    """The rows that ``compute`` returns for the queries, `PLACED_ROWS` of them at a time.

    Args:
        compute: maps queries on the devices, padded at the end with zero rows, to their rows.
        problem: holds the queries.
        unknown: queries that get the mean row.
        positions: positions of the requested queries; by default all.
    """
    asked = np.arange(len(problem.queries)) if positions is None else positions

    def blocks():
        for part in row_slices(len(asked)):
            chosen = asked[part]
            rows = np.asarray(compute(shard_rows(problem.queries[chosen], problem.mesh)))
            rows = rows[: len(chosen)]
            if unknown is not None and unknown[chosen].any():
                rows = np.where(unknown[chosen, None], problem.mean, rows)
            yield chosen, rows

    return blocks


def unit_rows(table: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
    """Every row divided by its Euclidean norm; zero rows stay zero."""
    norm = jnp.linalg.norm(table, axis=1, keepdims=True)
    return table / jnp.where(norm == 0, 1, norm)


def zero_rows(table: Float[np.ndarray, "rows dim"]) -> Bool[np.ndarray, " rows"]:
    """Which rows are all zeros."""
    return np.logical_not(table.any(axis=1))


class Sparse(NamedTuple):
    """A few weights per query, and the anchors they belong to."""

    weights: Float[Array, "query k"]
    ids: Int[Array, "query k"]


Weights = Sparse | Float[Array, "query anchor"]
Weigh = Callable[[Float[Array, "query feature"], Float[Array, "anchor feature"]], Weights]


def weighted(weigh: Weigh, problem: Problem, unknown: Bool[np.ndarray, " query"]) -> Prediction:
    """For every query, the anchors' rows combined with the weights that ``weigh`` returns.

    Args:
        weigh: maps a block of queries and all anchors to weights. One program is compiled for
            each that differs, so it must be a module-level function, or equal if made anew.
        problem: queries, anchors and their rows.
        unknown: queries that ``weigh`` cannot serve; they get the mean row.
    """

    def blocks():
        whole = replicated(problem.mesh)
        anchors, rows, places = (
            None if table is None else jax.device_put(table, whole)
            for table in (problem.anchors, problem.rows, problem.places)
        )

        def compute(queries: Float[Array, "part feature"]) -> Float[Array, "part dim"]:
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
    """A function that returns the anchors with the largest weights, in descending order."""

    def contributors(k: int) -> Contribution:
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
    """Combined rows, or the ``largest`` weights if a number is given."""

    def of_device(
        queries: Float[Array, "own feature"],
        anchors: Float[Array, "anchor feature"],
        rows: Float[Array, "known dim"] | None,
        places: Int[Array, " anchor"] | None,
    ):
        blocks = queries.reshape(-1, BLOCK_ROWS, queries.shape[1])

        def of_block(block: Float[Array, "block feature"]):
            weights = weigh(block, anchors)
            return (
                _combine(weights, rows, places) if largest is None else _largest(weights, largest)
            )

        results = jax.lax.map(of_block, blocks)
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), results)

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
    """The weighted rows; other rows of the table get weight zero."""
    assert rows is not None
    if isinstance(weights, Sparse):
        ids = weights.ids if places is None else places[weights.ids]
        start = jnp.zeros((len(ids), rows.shape[1]))
        return jax.lax.fori_loop(
            0,
            ids.shape[1],
            lambda k, sums: sums + weights.weights[:, k, None] * rows[ids[:, k]],
            start,
        )
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
