"""Cross-entropy of the next token, without ever holding the logits of a whole batch."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped

from clp_jax.attention import precision_of, through_cap
from clp_jax.mesh import BATCH, VOCABULARY, common_size, constrain
from clp_jax.models.decoder import Decoder, to_logits

WINDOW_CHUNK = 128
"""Positions of a window whose logits exist at the same time."""


class LossSums(NamedTuple):
    """The terms of the loss, each summed over the targets that count."""

    loss: Float[Array, ""]
    """Negative log-likelihoods in nats."""
    z: Float[Array, ""]
    """Squared logarithms of the softmax's normalizers."""
    tokens: Float[Array, ""]
    """Number of targets that count."""


def next_token_loss(
    hidden: Float[Array, "batch length embed"],
    head: Float[Array, "vocab embed"],
    targets: Int[Array, "batch length"],
    mask: Bool[Array, "batch length"],
    *,
    chunk: int,
    z_loss: float = 0.0,
    softcap: float | None = None,
    weights: Float[Array, "batch length"] | None = None,
) -> tuple[Float[Array, ""], LossSums]:
    """The sum over the masked targets of -log p + z_loss * log(Z)^2, and its terms.

    Z is the normalizer of the softmax (Chowdhery et al. 2022, arXiv 2204.02311, section 5). Logits
    and softmax are float32. Positions are processed in chunks, so only ``batch * chunk * vocab``
    logits exist at a time. Under differentiation, each chunk's gradient is computed together with
    its loss, so logits are computed once and the backward pass is a multiplication. All matrix
    products have the dtype of ``hidden``; the gradient of the head is summed in float32.

    Args:
        hidden: final hidden states, in the dtype of the computation.
        head: the output embedding.
        targets: the token that follows each position.
        mask: the targets that count.
        chunk: positions whose logits exist at the same time.
        z_loss: the coefficient of the second term.
        softcap: bound of the logits, see `to_logits`.
        weights: factor of each target's -log p in the sum; the terms are not weighted. None: 1.

    Returns:
        The sum, which is differentiable, and its terms, which are not.
    """
    weights = mask.astype(jnp.float32) if weights is None else weights
    parts = [_in_chunks(x, chunk) for x in (hidden, targets, mask, weights)]
    objective, loss, z = _sums(z_loss, softcap, parts[0], head, *parts[1:])
    return objective, LossSums(loss, z, jnp.sum(mask, dtype=jnp.float32))


def token_losses(
    hidden: Float[Array, "batch length embed"],
    head: Float[Array, "vocab embed"],
    targets: Int[Array, "batch length"],
    *,
    chunk: int,
    softcap: float | None = None,
) -> Float[Array, "batch length"]:
    """-log p of each target in nats, not differentiable; see `next_token_loss`."""
    rows = hidden, targets, jnp.ones(targets.shape, bool), jnp.ones(targets.shape)
    states, *rest = (_in_chunks(x, chunk) for x in rows)
    *_, losses = _scan(0.0, softcap, states, head, *rest, with_gradients=False)
    return jnp.moveaxis(losses, 0, 2).reshape(len(targets), -1)[:, : targets.shape[1]]


def _in_chunks(
    x: Shaped[Array, "batch length *rest"], chunk: int
) -> Shaped[Array, "chunks batch positions *rest"]:
    """Chunks of positions far apart, so that each position stays on its device."""
    length = x.shape[1]
    chunks = -(-length // min(chunk, length))
    padding = [(0, 0), (0, -length % chunks)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, padding)
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunks, *x.shape[2:]), 2, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sums(
    z_loss: float, softcap: float | None, *parts: Array
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The objective, the losses and their z terms, each summed; ``parts`` as in `_scan`."""
    return _scan(z_loss, softcap, *parts, with_gradients=False)[0]


def _scan(
    z_loss: float,
    softcap: float | None,
    hidden: Float[Array, "chunks batch positions embed"],
    head: Float[Array, "vocab embed"],
    targets: Int[Array, "chunks batch positions"],
    mask: Bool[Array, "chunks batch positions"],
    weights: Float[Array, "chunks batch positions"],
    *,
    with_gradients: bool,
) -> tuple[
    tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]],
    Float[Array, "chunks batch positions embed"] | None,
    Float[Array, "vocab embed"] | None,
    Float[Array, "chunks batch positions"],
]:
    """The sums over all chunks, the first one's gradients for hidden states and head, the losses.

    Devices that share parameters each compute the logits of all their rows for a part of the
    vocabulary: hidden states are exchanged, and no device ever holds the whole head or its
    gradient. Devices with different sequences or positions each accumulate a gradient of the head;
    these are summed once at the end.

    Args:
        z_loss: the coefficient of the second term.
        softcap: bound of the logits, or None.
        hidden: final hidden states.
        head: the output embedding.
        targets: the token that follows each position.
        mask: the targets that count.
        weights: their factors in the first sum.
        with_gradients: whether to compute the gradients; None otherwise.
    """
    rows, positions = hidden.shape[1], hidden.shape[2]
    copies = (common_size(rows, "data"), common_size(positions, "sequence"))
    weight = constrain(head.astype(hidden.dtype), VOCABULARY)
    product = partial(
        jnp.einsum, precision=precision_of(hidden.dtype), preferred_element_type=jnp.float32
    )

    def apart(
        x: Float[Array, "batch positions dim"],
    ) -> Float[Array, "data own_batch sequence own_positions dim"]:
        return x.reshape(copies[0], -1, copies[1], positions // copies[1], x.shape[-1])

    def laid_out(
        head_gradient: Float[Array, "data sequence vocab embed"],
    ) -> Float[Array, "data sequence vocab embed"]:
        return constrain(head_gradient, "data", "sequence", VOCABULARY)

    def add_chunk(sums: Any, part: Any) -> Any:
        objective, loss, z, head_gradient = sums
        hidden, targets, mask, weights = (constrain(x, "data", "sequence") for x in part)
        logits = constrain(to_logits(hidden, weight, softcap), "data", "sequence", VOCABULARY)
        correct = targets[..., None] == jnp.arange(head.shape[0])[None, None, :]
        row_max = jnp.max(logits, axis=-1)
        powers = jnp.exp(logits - row_max[..., None])
        total = jnp.sum(powers, axis=-1)
        log_z = row_max + jnp.log(total)
        losses = log_z - jnp.sum(jnp.where(correct, logits, 0), axis=-1)
        terms = jnp.where(mask, losses, 0), jnp.where(mask, log_z**2, 0)
        weights = jnp.where(mask, weights, 0)
        objective = objective + jnp.sum(weights * terms[0] + z_loss * terms[1])
        loss, z = loss + jnp.sum(terms[0]), z + jnp.sum(terms[1])
        if not with_gradients:
            return (objective, loss, z, None), (None, losses)
        scale = jnp.where(mask, (weights + 2 * z_loss * log_z) / total, 0)[..., None]
        gradient = powers * scale - jnp.where(correct, weights[..., None], 0)
        gradient = through_cap(gradient, logits, softcap).astype(hidden.dtype)
        more = product("xrycv,xrycd->xyvd", apart(gradient), apart(hidden))
        head_gradient = laid_out(head_gradient) + more
        hidden_gradient = product("bcv,vd->bcd", gradient, weight).astype(hidden.dtype)
        sums = objective, loss, z, head_gradient
        return sums, (constrain(hidden_gradient, BATCH, "sequence"), losses)

    nothing: Any = jnp.zeros((*copies, *head.shape), jnp.float32) if with_gradients else None
    zero = jnp.float32(0)
    (objective, loss, z, head_gradient), (hidden_gradient, losses) = jax.lax.scan(
        add_chunk, (zero, zero, zero, nothing), (hidden, targets, mask, weights)
    )
    if with_gradients:
        head_gradient = jnp.sum(laid_out(head_gradient), axis=(0, 1))
    return (objective, loss, z), hidden_gradient, head_gradient, losses


def _forward(z_loss: float, softcap: float | None, *parts: Array) -> tuple[Any, Any]:
    sums, *gradients, _ = _scan(z_loss, softcap, *parts, with_gradients=True)
    return sums, gradients


def _backward(z_loss: float, softcap: float | None, gradients: Any, cotangents: Any) -> Any:
    hidden, head = (gradient * cotangents[0].astype(gradient.dtype) for gradient in gradients)
    return hidden, head, None, None, None


_sums.defvjp(_forward, _backward)


@partial(jax.jit, static_argnums=0)
def window_losses(
    graphdef: nnx.GraphDef[Decoder],
    parameters: nnx.State,
    tokens: Int[Array, "batch window"],
) -> Float[Array, "batch length"]:
    """Negative log-likelihood in nats of each token of a window but its first.

    Args:
        graphdef: the model's structure.
        parameters: its parameters.
        tokens: windows, one token longer than the predictions.
    """
    model = nnx.merge(graphdef, parameters)
    return token_losses(
        model.hidden_states(tokens[:, :-1]),
        model.output_embedding(),
        tokens[:, 1:],
        chunk=WINDOW_CHUNK,
        softcap=model.config.final_softcap,
    )


@partial(jax.jit, static_argnums=0)
def window_loss(
    graphdef: nnx.GraphDef[Decoder],
    parameters: nnx.State,
    tokens: Int[Array, "batch window"],
    mask: Bool[Array, "batch length"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the negative log-likelihoods (nats) of the masked targets, and their number.

    There is no dropout; each token is predicted from the tokens before it.

    Args:
        graphdef: the model's structure.
        parameters: its parameters.
        tokens: windows, one token longer than the predictions.
        mask: the predictions that count.
    """
    model = nnx.merge(graphdef, parameters)
    _, sums = next_token_loss(
        model.hidden_states(tokens[:, :-1]),
        model.output_embedding(),
        tokens[:, 1:],
        mask,
        chunk=WINDOW_CHUNK,
        softcap=model.config.final_softcap,
    )
    return sums.loss, sums.tokens
