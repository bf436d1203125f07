"""Cross-entropy of the next token, without the logits of a whole batch ever existing."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from clp_jax.models.decoder import Decoder, to_logits

WINDOW_CHUNK = 128
"""Positions of a window whose logits exist at the same time."""


def next_token_loss(
    hidden: Float[Array, "batch length embed"],
    head: Float[Array, "vocab embed"],
    targets: Int[Array, "batch length"],
    mask: Bool[Array, "batch length"],
    *,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the negative log-likelihoods (nats) of the masked targets, and their number.

    Logits and softmax are float32. Only ``batch * chunk * vocab`` logits exist at a time: the
    positions are taken in chunks, and the backward pass computes each chunk's logits again.

    Args:
        hidden: final hidden states, in the dtype of the computation.
        head: the output embedding.
        targets: the token that follows each position.
        mask: the targets that count.
        chunk: positions whose logits exist at the same time.
    """
    batch, length, _ = hidden.shape
    chunk = min(chunk, length)
    chunks = -(-length // chunk)

    def in_chunks(x: Array) -> Array:
        padding = [(0, 0), (0, chunks * chunk - length)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, padding).reshape(batch, chunks, chunk, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    head = head.astype(hidden.dtype)

    @jax.checkpoint
    def chunk_loss(total: Array, parts: tuple[Array, Array, Array]) -> tuple[Array, None]:
        hidden, targets, mask = parts
        logits = to_logits(hidden, head)
        correct = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        losses = jax.nn.logsumexp(logits, axis=-1) - correct
        return total + jnp.sum(losses * mask), None

    total, _ = jax.lax.scan(
        chunk_loss, jnp.float32(0), (in_chunks(hidden), in_chunks(targets), in_chunks(mask))
    )
    return total, jnp.sum(mask, dtype=jnp.float32)


@partial(jax.jit, static_argnums=0)
def window_loss(
    graphdef: nnx.GraphDef[Decoder],
    parameters: nnx.State,
    tokens: Int[Array, "batch window"],
    mask: Bool[Array, "batch length"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`next_token_loss` of a model without dropout, each token predicted from those before it.

    Args:
        graphdef: the model's structure.
        parameters: its parameters.
        tokens: windows, a token longer than the predictions.
        mask: the predictions that count.
    """
    model = nnx.merge(graphdef, parameters)
    return next_token_loss(
        model.hidden_states(tokens[:, :-1]),
        model.output_embedding(),
        tokens[:, 1:],
        mask,
        chunk=WINDOW_CHUNK,
    )
