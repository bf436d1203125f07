"""Floating-point operations of a training step, also of one with frozen parts or a teacher."""

import jax
from flax import nnx

from clp_jax.config import RunConfig
from clp_jax.models import Decoder
from clp_jax.models.lora import adapters
from clp_jax.train.optimizer import trainable
from clp_jax.train.teacher import Teacher

ABOVE_LAYERS = {"final_norm", "head"}
"""The parts whose gradients need none of the layers."""


def step_flops_per_token(model: Decoder, config: RunConfig, teacher: Teacher | None) -> int:
    """Operations of a step per token of the new model, without recomputation.

    A product with weights is computed once forward, once for the gradient of its input, if
    something below it is trained, and once for the gradient of its weights, if they are trained. A
    teacher adds its own forward pass, over more tokens, up to the last layer that a loss needs; if
    likelihoods are compared, both models compute their logits once more.

    Args:
        model: the new model.
        config: the run's configuration.
        teacher: the source, if it teaches.
    """
    length, depth = config.data.sequence_length, model.config.num_layers
    params = nnx.to_pure_dict(nnx.state(model))
    trained, added = trainable(params, config.optimizer).keys(), adapters(params)
    through_layers = bool(trained - ABOVE_LAYERS)
    own = model.forward_flops(length, depth if teacher is None else max(teacher.layers[0]))
    total = own.attention * (1 + 2 * through_layers)
    total += own.products * (1 + through_layers + ("blocks" in trained and not added))
    total += 3 * 2 * sum(leaf.size for leaf in jax.tree.leaves(added))
    if config.predicts:
        total += own.head * (2 + ("token_embedding" in trained))
    if teacher is not None:
        known = teacher.abstract.forward_flops(teacher.length, max(teacher.layers[1], default=0))
        source = known.products + known.attention
        if config.teacher.likelihoods:
            source, total = source + known.head, total + own.head
        total += source * teacher.length / length
    return round(total)
