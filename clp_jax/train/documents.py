"""Where the documents of packed sequences are, found from the tokens alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def document_numbers(tokens: Int[Array, "batch length"], eos_id: int) -> Int[Array, "batch length"]:
    """The document of each token: how many ``eos_id`` were seen up to and including it.

    An ``eos_id`` opens the document that follows it.
    """
    return jnp.cumsum(tokens == eos_id, axis=1)


def document_positions(
    tokens: Int[Array, "batch length"], eos_id: int
) -> Int[Array, "batch length"]:
    """Position of each token in its document, or in the part of it that the sequence holds."""
    positions = jnp.arange(tokens.shape[1])
    starts = jnp.where(tokens == eos_id, positions, 0)
    return positions - jax.lax.cummax(starts, axis=1)
