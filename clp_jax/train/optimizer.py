"""AdamW in float32, with warm-up, decay, clipping, and weight decay of matrices only."""

from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from clp_jax.config import OptimizerSection
from clp_jax.errors import UserError

NOT_DECAYED = ("bias", "scale")


def learning_rate_schedule(section: OptimizerSection, steps: int) -> optax.Schedule:
    """Learning rate of the update with index 0, 1, ..., ``steps`` - 1.

    The warm-up is a straight line from zero; no update is spent on the zero itself. The highest
    rate is that of update ``warmup_steps`` - 1, and the last update has ``final_ratio`` of it
    (`constant` stays at the highest).

    Raises:
        UserError: the warm-up leaves no step for the rest of the schedule.
    """
    peak, warmup = section.learning_rate, section.warmup_steps
    if warmup >= steps:
        raise UserError(
            f"optimizer.warmup_steps is {warmup}, which must be less than train.steps, {steps}."
        )
    match section.schedule:
        case "cosine":
            decay = optax.cosine_decay_schedule(peak, steps - warmup, alpha=section.final_ratio)
        case "linear":
            decay = optax.linear_schedule(peak, peak * section.final_ratio, steps - warmup)
        case "constant":
            decay = optax.constant_schedule(peak)
    if not warmup:
        return lambda index: decay(index + 1)
    rise = optax.linear_schedule(0.0, peak, warmup)
    joined = optax.join_schedules([rise, decay], [warmup])
    return lambda index: joined(index + 1)


def make_optimizer(section: OptimizerSection, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping by the global norm, then the update of ``torch.optim.AdamW``.

    Its update takes the ``index`` of the step, on which the learning rate depends: steps that are
    skipped do not delay the schedule. Its state is two arrays a parameter, shaped like the
    parameter and in its dtype, and a counter.

    Raises:
        UserError: the warm-up is longer than the run.
    """
    return optax.chain(
        optax.clip_by_global_norm(section.clip_norm),
        optax.scale_by_adam(b1=section.beta1, b2=section.beta2, eps=section.epsilon),
        optax.add_decayed_weights(section.weight_decay, mask=is_decayed),
        _descend(learning_rate_schedule(section, steps)),
    )


def _descend(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Steps downhill, as long as the learning rate of the index says."""

    def update(
        updates: PyTree,
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        index: int | Array,
        **_: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        rate = schedule(index)
        return jax.tree.map(lambda update: -rate * update, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def is_decayed(params: PyTree) -> PyTree[bool]:
    """True for kernels and embeddings, False for what is called `bias` or `scale`.

    The name decides, not the rank: the layers of a model are stacked, so its biases are matrices.
    """

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return path[-1].key not in NOT_DECAYED

    return jax.tree_util.tree_map_with_path(decayed, params)
