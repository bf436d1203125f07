"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235) for parameters that are stacks of matrices.

Optax's version takes the two longest axes of an array for its matrix, which the layers and heads of
stacked parameters can be.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from clp_jax.train.groups import KERNELS, Matrix

TINY = 1e-30
"""Added to each squared gradient."""
SMALLEST_SCALE = 1e-3
"""Parameters whose root mean square is less than this are changed as if it were this."""


class AdafactorState(NamedTuple):
    """Running means of the squared gradients; an axis along which is averaged has the size 1."""

    step: Int[Array, ""]
    rows: PyTree[Float[Array, "..."]]
    """Their means along the outputs of each matrix."""
    columns: PyTree[Float[Array, "..."]]
    """Their means along its inputs."""


def scale_by_adafactor() -> optax.GradientTransformation:
    """Scale gradients as Adafactor does: without momentum, and relative to the parameters' size.

    The squared gradients of a matrix are estimated by the product of their means along either
    side. Those of a vector are kept whole. The update of each matrix or vector is clipped to a root
    mean square of 1 and multiplied by that of its parameters.
    """

    def init(params: PyTree) -> AdafactorState:
        def means(param: Array, axes: tuple[int, ...]) -> Array:
            sizes = enumerate(param.shape)
            return jnp.zeros([1 if axis in axes else size for axis, size in sizes], jnp.float32)

        matrices = _matrices(params)
        return AdafactorState(
            jnp.int32(0),
            rows=jax.tree.map(lambda p, m: means(p, m.outputs), params, matrices),
            columns=jax.tree.map(lambda p, m: means(p, m.inputs), params, matrices),
        )

    def update(
        gradients: PyTree, state: AdafactorState, params: PyTree = None
    ) -> tuple[PyTree, AdafactorState]:
        kept, matrices = 1 - (state.step + 1.0) ** -0.8, _matrices(params)

        def mean(old: Array, gradient: Array, axes: tuple[int, ...]) -> Array:
            new = jnp.mean(gradient**2 + TINY, axes, keepdims=True)
            return kept * old + (1 - kept) * new

        def scaled(gradient: Array, rows: Array, columns: Array, param: Array, m: Matrix) -> Array:
            overall = jnp.mean(rows, m.inputs, keepdims=True)
            gradient = gradient * jax.lax.rsqrt(rows / overall) * jax.lax.rsqrt(columns)
            size = jnp.maximum(_root_mean_square(param, m), SMALLEST_SCALE)
            return gradient * size / jnp.maximum(_root_mean_square(gradient, m), 1.0)

        rows = jax.tree.map(
            lambda old, g, m: mean(old, g, m.outputs), state.rows, gradients, matrices
        )
        columns = jax.tree.map(
            lambda old, g, m: mean(old, g, m.inputs), state.columns, gradients, matrices
        )
        updates = jax.tree.map(scaled, gradients, rows, columns, params, matrices)
        return updates, AdafactorState(state.step + 1, rows, columns)

    return optax.GradientTransformation(init, update)


def _matrices(params: PyTree) -> PyTree[Matrix]:
    """The axes of each parameter's matrices; a vector is a matrix without outputs."""

    def axes(path: tuple[Any, ...], param: Array) -> Matrix:
        match path[-1].key:
            case "kernel":
                return KERNELS[path[-2].key]
            case "embedding":
                return Matrix((0,), (1,))
        stacked = path[0].key == "blocks"
        return Matrix(tuple(range(stacked, param.ndim)), ())

    return jax.tree_util.tree_map_with_path(axes, params)


def _root_mean_square(x: Array, matrix: Matrix) -> Array:
    return jnp.sqrt(jnp.mean(x**2, (*matrix.inputs, *matrix.outputs), keepdims=True))
