"""Orthogonal matching pursuit: each query as a combination of a few anchors.

After Pati et al. 1993: choose the anchor whose direction is nearest to the residual of the query,
solve the least-squares problem over all chosen anchors, and repeat with the new residual. The
coefficients of the query's features then combine the source's rows; they may be negative and need
not sum to one.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from clp_jax.transfer.blockwise import Sparse, matmul, unit_rows, weighted, zero_rows
from clp_jax.transfer.interface import Prediction, Problem

DEPENDENT = 1e-4
"""An anchor whose direction is this close to the span of the earlier ones gets no weight."""


@dataclass(frozen=True)
class Pursuit:
    """Weights by matching pursuit.

    Attributes:
        atoms: how many anchors to choose. Each costs one more pass over all anchors.
    """

    atoms: int

    def __call__(
        self, queries: Float[Array, "query feature"], anchors: Float[Array, "anchor feature"]
    ) -> Sparse:
        """The chosen anchors of a block of queries and their least-squares coefficients."""
        unit = unit_rows(anchors)
        atoms = min(self.atoms, len(anchors))
        size, dim = queries.shape

        def choose(step, state):
            rest, basis, triangle, parts, ids = state
            # What is left is at right angles to the atoms so far, so none is chosen twice.
            best = _place_of_largest(jnp.abs(matmul(rest, unit.T)))
            atom = unit[best]
            # Gram-Schmidt, twice because of rounding; basis rows that are not yet set are zero.
            shares = jnp.einsum("qkd,qd->qk", basis, atom, precision="highest")
            new = atom - jnp.einsum("qk,qkd->qd", shares, basis, precision="highest")
            again = jnp.einsum("qkd,qd->qk", basis, new, precision="highest")
            new = new - jnp.einsum("qk,qkd->qd", again, basis, precision="highest")
            length = jnp.linalg.norm(new, axis=1)
            independent = length > DEPENDENT
            new = jnp.where(independent[:, None], new / jnp.maximum(length, DEPENDENT)[:, None], 0)
            part = jnp.sum(new * queries, axis=1)
            column = (shares + again).at[:, step].set(jnp.where(independent, length, 1))
            return (
                rest - part[:, None] * new,
                basis.at[:, step].set(new),
                triangle.at[:, :, step].set(column),
                parts.at[:, step].set(part),
                ids.at[:, step].set(best),
            )

        start = (
            queries,
            jnp.zeros((size, atoms, dim)),
            jnp.zeros((size, atoms, atoms)),
            jnp.zeros((size, atoms)),
            jnp.zeros((size, atoms), jnp.int32),
        )
        _, _, triangle, parts, ids = jax.lax.fori_loop(0, atoms, choose, start)
        weights = jax.scipy.linalg.solve_triangular(triangle, parts[..., None])[..., 0]
        norms = jnp.linalg.norm(anchors, axis=1)
        return Sparse(weights / jnp.where(norms == 0, 1, norms)[ids], ids)


def _place_of_largest(fit: Float[Array, "query anchor"]) -> Int[Array, " query"]:
    """The first place of each row's largest value: argmax, in passes that a CPU can vectorise."""
    largest = fit.max(axis=1, keepdims=True)
    return jnp.where(fit == largest, jnp.arange(fit.shape[1])[None], fit.shape[1]).min(axis=1)


def omp(problem: Problem, *, atoms: int = 64) -> Prediction:
    """The combination of a few anchors' rows whose features best approximate the query's."""
    return weighted(Pursuit(atoms), problem, zero_rows(problem.queries))
