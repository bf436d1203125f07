r"""What new embeddings learn from the source, which reads the same text with its own tokenizer.

Both models have the same layers; only their embeddings differ. Where tokens of both end at the same
byte, both have read the same text. There the source teaches

* its hidden states after one layer, relative to their size: |h - t|^2 / |t|^2, as in Token
  Distillation (Dobler et al. 2025, arXiv 2505.20133);
* how likely the text between two such places is, by Approximate Likelihood Matching (Minixhofer et
  al. 2025, arXiv 2503.20083). With the log-likelihood c of a stretch in the new model and d in the
  source, p = exp(d / T) and q = exp(c / T), its loss is the divergence of two coins,
  p log(p / q) + (1 - p) log((1 - p) / (1 - q)), which needs no correspondence of single tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from clp_jax.config import TeacherSection

TEMPERATURE = 100.0
"""T of the likelihoods, as in the paper."""
LEAST = 1e-6
"""Least distance of q from 1, which only stretches that are certain reach."""


class Lesson(NamedTuple):
    """What a teacher adds to the loss of a batch.

    Attributes:
        loss: its own term, summed over the batch.
        weights: factor of -log p of each target in the next-token loss; None: 1.
        sums: what `lesson_metrics` reports, summed over the batch.
    """

    loss: Float[Array, ""] | float
    weights: Float[Array, "batch length"] | None
    sums: dict[str, Float[Array, ""]]


def give_lesson(
    section: TeacherSection,
    states: tuple[Mapping[int, Float[Array, "..."]], Mapping[int, Float[Array, "..."]]],
    heads: tuple[Float[Array, "vocab embed"], Float[Array, "source_vocab embed"]],
    batch: Mapping[str, Any],
    *,
    layer: int,
    final: int,
    losses: Callable[..., Float[Array, "batch length"]],
    eos_id: int,
) -> Lesson:
    """The teacher's part of the loss of a batch.

    All terms are summed over a batch and divided by the number of its targets afterwards. So a
    token without a partner counts as one without error, and microbatches add up.

    Args:
        section: the weights of the terms.
        states: hidden states of the new model and of the source by layer, as `Teacher.layers`.
        heads: their output embeddings.
        batch: ``tokens``, ``mask``, ``source_tokens`` and ``positions``, as in `make_train_step`.
        layer: the layer after which hidden states are compared.
        final: the last layer.
        losses: -log p of targets from hidden states, head and targets.
        eos_id: the new tokenizer's end-of-text id. Likelihoods are compared within documents.
    """
    targets, positions = batch["tokens"][:, 1:], batch["positions"]
    own, known = states[0], jax.lax.stop_gradient(states[1])
    weights = section.next_token * batch["mask"].astype(jnp.float32)
    loss: Float[Array, ""] | float = 0.0
    sums = {"aligned": jnp.sum(positions[:, :-1] >= 0, dtype=jnp.float32)}
    if section.hidden_states:
        sums["hidden_states"] = hidden_state_loss(own[layer], known[layer], positions[:, :-1])
        loss = section.hidden_states * sums["hidden_states"]
    if section.likelihoods:
        ours = losses(*jax.lax.stop_gradient((own[final], heads[0])), targets)
        source = losses(known[final][:, :-1], heads[1], batch["source_tokens"][:, 1:])
        counted = batch["mask"] & (targets != eos_id)
        divergence, slopes, stretches = likelihood_loss(ours, source, positions, counted)
        weights += section.likelihoods * slopes
        sums |= {"likelihoods": divergence, "stretches": stretches}
    return Lesson(loss, jax.lax.stop_gradient(weights), sums)


def lesson_metrics(
    sums: Mapping[str, Float[Array, ""]], tokens: Float[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """What a lesson reports, from its sums over a batch with ``tokens`` targets.

    ``teacher/aligned`` is the share of the tokens that end where one of the source's does,
    ``teacher/hidden_states`` the mean relative squared error there, and ``teacher/likelihoods`` the
    mean divergence of the stretches between them; the last two if they have a weight.
    """
    metrics = {"teacher/aligned": sums["aligned"] / tokens} if sums else {}
    for name, count in (("hidden_states", "aligned"), ("likelihoods", "stretches")):
        if name in sums:
            metrics[f"teacher/{name}"] = sums[name] / jnp.maximum(sums[count], 1)
    return metrics


def hidden_state_loss(
    hidden: Float[Array, "batch length embed"],
    taught: Float[Array, "batch source_length embed"],
    positions: Int[Array, "batch length"],
) -> Float[Array, ""]:
    """The sum of |h - t|^2 / |t|^2 over the positions with a partner.

    Args:
        hidden: hidden states of the new model.
        taught: those of the source.
        positions: position in ``taught`` of the partner, or -1.
    """
    real = positions >= 0
    places = jnp.maximum(positions, 0)[..., None]
    wanted = jnp.take_along_axis(taught, places, axis=1).astype(jnp.float32)
    error = jnp.sum((hidden.astype(jnp.float32) - wanted) ** 2, axis=-1)
    size = jnp.sum(wanted**2, axis=-1)
    return jnp.sum(jnp.where(real, error / jnp.where(real, size, 1), 0))


def likelihood_loss(
    losses: Float[Array, "batch length"],
    taught: Float[Array, "batch source_length"],
    positions: Int[Array, "batch length+1"],
    mask: Bool[Array, "batch length"],
) -> tuple[Float[Array, ""], Float[Array, "batch length"], Float[Array, ""]]:
    """The sum of the divergences of all stretches, its gradient, and the number of stretches.

    Args:
        losses: -log p of the new model's tokens, all but the first of a sequence, in nats.
        taught: the same of the source.
        positions: for each token of the new model, the first included, the position of the source's
            token that ends at the same byte, or -1; ascending.
        mask: the tokens that count; a stretch with another token is left out.

    Returns:
        The sum, its derivative by each of ``losses``, and the number of stretches.
    """
    aligned = positions >= 0
    places = jnp.where(aligned, positions, taught.shape[1] + 1)
    marked = jnp.zeros((len(taught), taught.shape[1] + 2), bool)
    marked = jax.vmap(lambda row, at: row.at[at].set(True))(marked, places)
    own, theirs = _stretches(aligned), _stretches(marked[:, :-1])
    count = losses.shape[1] + 2
    ours = jax.vmap(lambda x, at: jax.ops.segment_sum(x, at, count))(-losses, own)
    source = jax.vmap(lambda x, at: jax.ops.segment_sum(x, at, count))(-taught, theirs)
    stretch = jnp.arange(count)[None, :]
    missing = jax.vmap(lambda x, at: jax.ops.segment_max(x, at, count))(~mask, own)
    complete = (stretch > 0) & (stretch < aligned.sum(axis=1, keepdims=True)) & ~missing
    # 1 - exp(x) is small and would lose its digits.
    rest = jnp.maximum(-jnp.expm1(ours / TEMPERATURE), LEAST)
    taught_rest = jnp.maximum(-jnp.expm1(source / TEMPERATURE), LEAST)
    likely = jnp.exp(source / TEMPERATURE)
    divergence = likely * (source - ours) / TEMPERATURE
    divergence += taught_rest * (jnp.log(taught_rest) - jnp.log(rest))
    # By c: (q - p) / (T (1 - q)), and the losses are -c.
    slope = (taught_rest - rest) / (TEMPERATURE * rest)
    slope = jnp.where(complete, -slope, 0)
    return (
        jnp.sum(jnp.where(complete, divergence, 0)),
        jnp.take_along_axis(slope, own, axis=1),
        jnp.sum(complete, dtype=jnp.float32),
    )


def _stretches(aligned: Bool[Array, "batch tokens"]) -> Int[Array, "batch tokens-1"]:
    """The stretch of each token but the first: how many aligned ones come before it."""
    return jnp.cumsum(aligned, axis=1)[:, :-1]
