"""Sums over the anchors, with one block of them on the devices at a time."""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.transfer.blockwise import matmul, row_slices, shard_rows
from clp_jax.transfer.interface import Problem


class Sums(NamedTuple):
    """Sums of a, y, A^T A and A^T Y over some anchors, with features a and rows y."""

    features: Float[Array, " feature"]
    rows: Float[Array, " dim"]
    squares: Float[Array, "feature feature"]
    products: Float[Array, "feature dim"]


def sums_of(
    features: Float[Array, "anchor feature"],
    rows: Float[Array, "anchor dim"],
    weights: Float[Array, "anchor 1"] | float = 1.0,
) -> Sums:
    """The weighted sums over a block of anchors, float32.

    Anchors of weight zero add nothing, nor do those whose features and row are zero.
    """
    weighed = weights * features
    return Sums(
        weighed.sum(axis=0),
        (weights * rows).sum(axis=0),
        matmul(weighed.T, features),
        matmul(weighed.T, rows),
    )


def add_blocks(
    add_up: Callable[
        [Float[Array, "padded feature"], Float[Array, "padded dim"], Int[np.ndarray, " part"]], Sums
    ],
    problem: Problem,
    ids: Int[np.ndarray, " chosen"],
) -> Sums:
    """What ``add_up`` returns for features, rows and ids of anchors, summed over the blocks."""
    blocks = (
        jax.block_until_ready(add_up(anchors, rows, chosen))
        for chosen, anchors, rows in known_blocks(problem, ids)
    )
    return reduce(partial(jax.tree.map, jnp.add), blocks)


def known_blocks(
    problem: Problem, ids: Int[np.ndarray, " chosen"]
) -> Iterator[
    tuple[Int[np.ndarray, " part"], Float[Array, "padded feature"], Float[Array, "padded dim"]]
]:
    """Ids, features and rows of some anchors, block by block, padded with zero rows."""
    for part in row_slices(len(ids)):
        chosen = ids[part]
        anchors, rows = problem.anchors[chosen], problem.rows_of(chosen)
        yield chosen, shard_rows(anchors, problem.mesh), shard_rows(rows, problem.mesh)


def eigen(
    symmetric: Float[np.ndarray, "dim dim"],
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, "dim dim"]]:
    """Eigenvalues in ascending order and eigenvectors as columns; NaN if a sum has overflowed."""
    if not np.isfinite(symmetric).all():
        return np.full(len(symmetric), np.nan), np.full(symmetric.shape, np.nan)
    return np.linalg.eigh(symmetric)
