"""The optimizer: clipping, a direction, weight decay of matrices, and a rate for each parameter."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree
from optax import contrib

from clp_jax.config import OptimizerSection
from clp_jax.errors import UserError
from clp_jax.train.adafactor import scale_by_adafactor
from clp_jax.train.groups import GROUPS, KERNELS, trained

NOT_DECAYED = ("bias", "scale")
MUON_MOMENTUM = 0.95
MUON_SIZE = 0.2
"""Root mean square of Muon's updates: about that of AdamW's, so that its learning rates serve."""


def learning_rate_schedule(section: OptimizerSection, steps: int) -> optax.Schedule:
    """Learning rate of the update with index 0, 1, ..., ``steps`` - 1.

    The warm-up is a straight line from zero; no update is spent on the zero itself. The highest
    rate is that of update ``warmup_steps`` - 1, and the last update has ``final_ratio`` of it
    (`constant` stays at the highest). With restarts the rate falls several times, each time over
    as many steps (Loshchilov & Hutter 2017, arXiv 1608.03983, with a period that stays the same).

    Raises:
        UserError: the warm-up leaves no step for the rest of the schedule.
    """
    peak, warmup = section.learning_rate, section.warmup_steps
    if warmup >= steps:
        raise UserError(
            f"optimizer.warmup_steps is {warmup}, which must be less than train.steps, {steps}."
        )
    period = (steps - warmup) / (section.restarts + 1)
    match section.schedule:
        case "cosine":
            fall = optax.cosine_decay_schedule(peak, period, alpha=section.final_ratio)
        case "linear":
            fall = optax.linear_schedule(peak, peak * section.final_ratio, period)
        case "constant":
            fall = optax.constant_schedule(peak)

    def rate(index: int | Array) -> Array:
        done = index + 1 - warmup
        fallen = fall(done - period * jnp.floor(jnp.maximum(done - 1, 0) / period))
        return jnp.where(done < 0, peak * (index + 1) / max(warmup, 1), fallen)

    return rate


def make_optimizer(section: OptimizerSection, steps: int) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a model's parameters, as a nested dict.

    Its update takes the ``index`` of the step, on which the learning rates depend: steps that are
    skipped do not delay the schedule. Frozen parts are left out of its state and its updates.
    The state is one or two arrays a parameter, shaped like it, or with axes of size 1; `adamw` is
    ``torch.optim.AdamW``.

    Raises:
        UserError: the warm-up, or the time of the embeddings alone, is longer than the run.
    """
    schedule = learning_rate_schedule(section, steps)
    if section.embeddings_first >= steps:
        raise UserError(
            f"optimizer.embeddings_first is {section.embeddings_first}, which must be less than "
            f"train.steps, {steps}: to train the embeddings alone, set the other optimizer.rates "
            "to 0."
        )
    chain = optax.chain(
        optax.clip_by_global_norm(section.clip_norm),
        _direction(section),
        optax.add_decayed_weights(section.weight_decay, mask=is_decayed),
        _descend(section, schedule),
    )

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, optax.OptState]:
        return chain.update(trained(updates, section), state, trained(params, section), **extra)

    return optax.GradientTransformationExtraArgs(
        lambda params: chain.init(trained(params, section)), update
    )


def _direction(section: OptimizerSection) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(
        b1=section.beta1, b2=section.beta2, eps=section.epsilon, mu_dtype=section.mu_dtype
    )
    match section.name:
        case "adamw":
            return adam
        case "adafactor":
            return scale_by_adafactor()
        case "lion":
            return optax.scale_by_lion(section.beta1, section.beta2, mu_dtype=section.mu_dtype)
        case "muon":
            return optax.partition({"muon": _muon(section), "adamw": adam}, _muon_or_adamw)


def _muon(section: OptimizerSection) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024), its updates as large as AdamW's (Liu et al. 2025, 2502.16982)."""

    def axes(path: tuple[Any, ...], _: Any) -> contrib.MuonDimensionNumbers:
        return contrib.MuonDimensionNumbers(*KERNELS[path[-2].key])

    def resize(path: tuple[Any, ...], update: Array) -> Array:
        sides = (math.prod(update.shape[i] for i in side) for side in KERNELS[path[-2].key])
        return MUON_SIZE * max(sides) ** 0.5 * update

    return optax.chain(
        contrib.scale_by_muon(
            beta=MUON_MOMENTUM,
            eps=section.epsilon,
            mu_dtype=section.mu_dtype,
            weight_dimension_numbers=partial(jax.tree_util.tree_map_with_path, axes),
        ),
        optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(resize, updates)),
    )


def _muon_or_adamw(params: PyTree) -> PyTree[str]:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "muon" if path[-1].key == "kernel" else "adamw", params
    )


def _descend(
    section: OptimizerSection, schedule: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Steps downhill, each part of the model at its own rate."""

    def part_rate(part: str, index: int | Array) -> Array:
        rate = section.rates.get(GROUPS[part], 1) * schedule(index)
        if section.embeddings_first and GROUPS[part] != "embeddings":
            alone, warmup = section.embeddings_first, max(section.warmup_steps, 1)
            rate = rate * jnp.clip((index + 1 - alone) / warmup, 0, 1)
        return rate

    def update(
        updates: dict[str, PyTree],
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        index: int | Array,
        **_: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        def step(path: tuple[Any, ...], update: Array) -> Array:
            rate = part_rate(path[0].key, index)
            if path[0].key == "blocks" and section.layer_decay < 1:
                factors = layer_factors(update.shape[0], section.layer_decay)
                update = update * factors.reshape(-1, *[1] * (update.ndim - 1))
            return -rate * update

        return jax.tree_util.tree_map_with_path(step, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def layer_factors(layers: int, decay: float) -> Float[np.ndarray, " layers"]:
    """Factor of each layer's learning rate: ``decay`` to the number of layers to the nearer end.

    Howard & Ruder (2018, arXiv 1801.06146, section 3.2) let the rate fall from the output to the
    input, for a new task on top of known words. Here words are new, and they are read by the first
    layers and written by the last ones. Which is better was not measured.
    """
    index = np.arange(layers)
    return np.float32(decay) ** np.minimum(index, layers - 1 - index)


def is_decayed(params: PyTree) -> PyTree[bool]:
    """True for kernels and embeddings, False for what is called `bias` or `scale`.

    The name decides, not the rank: the layers of a model are stacked, so its biases are matrices.
    """

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return path[-1].key not in NOT_DECAYED

    return jax.tree_util.tree_map_with_path(decayed, params)
