"""The optimizer: clipping, direction, weight decay of matrices, and learning rate of each part.

Adafactor (Shazeer & Stern 2018, arXiv 1804.04235) is implemented here because parameters are stacks
of matrices: Optax's version takes the two longest axes of an array as its matrix, and those can be
the layers and the heads.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from optax import contrib

from clp_jax.config import OptimizerSection, ParameterGroup
from clp_jax.errors import UserError
from clp_jax.models.lora import adapters

GROUPS: Mapping[str, ParameterGroup] = {
    "token_embedding": "embeddings",
    "embedding_norm": "embeddings",
    "head": "embeddings",
    "position_embedding": "positions",
    "blocks": "layers",
    "final_norm": "final_norm",
}
"""The parameter group of each part of a model."""


class Matrix(NamedTuple):
    """The axes of a parameter that form a matrix; all other axes stack several matrices."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


# Axis 0 stacks the layers. Queries, keys and values are separate matrices.
KERNELS: Mapping[str, Matrix] = {
    "qkv": Matrix((1,), (3, 4)),
    "query": Matrix((1,), (2, 3)),
    "key": Matrix((1,), (2, 3)),
    "value": Matrix((1,), (2, 3)),
    "out": Matrix((1, 2), (3,)),
    "gate": Matrix((1,), (2,)),
    "up": Matrix((1,), (2,)),
    "down": Matrix((1,), (2,)),
}


def trainable(params: Mapping[str, PyTree], section: OptimizerSection) -> dict[str, PyTree]:
    """The parameters whose learning rate is not always zero, a nested dict without the others.

    Of layers with adapters those are the adapters.
    """
    added = adapters(params)
    whole = {
        part: tree
        for part, tree in params.items()
        if part not in added and not section.freezes(GROUPS[part], adapters=bool(added))
    }
    return whole | added


def group_norms(gradients: Mapping[str, PyTree]) -> dict[str, Float[Array, ""]]:
    """The gradient norm of each group that has gradients."""
    groups: dict[str, list[Any]] = {}
    for part, tree in gradients.items():
        groups.setdefault(GROUPS[part], []).append(tree)
    return {group: optax.tree_utils.tree_norm(trees) for group, trees in groups.items()}


TINY = 1e-30
"""Added to each squared gradient."""
SMALLEST_SCALE = 1e-3
"""Parameters with a smaller root mean square are updated as if it were this."""


class AdafactorState(NamedTuple):
    """Running means of the squared gradients; an averaged axis has size 1."""

    step: Int[Array, ""]
    rows: PyTree[Float[Array, "..."]]
    """Means along the outputs of each matrix."""
    columns: PyTree[Float[Array, "..."]]
    """Means along the inputs of each matrix."""


def scale_by_adafactor() -> optax.GradientTransformation:
    """Scale gradients as Adafactor does: without momentum, and relative to the parameters' size.

    The squared gradients of a matrix are approximated by the product of their means along each
    side; those of a vector are stored in full. The update of each matrix or vector is clipped to a
    root mean square of 1 and multiplied by the root mean square of its parameters.
    """

    def init(params: PyTree) -> AdafactorState:
        def means(param: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
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

        def mean(
            old: Float[Array, "..."], gradient: Float[Array, "..."], axes: tuple[int, ...]
        ) -> Float[Array, "..."]:
            new = jnp.mean(gradient**2 + TINY, axes, keepdims=True)
            return kept * old + (1 - kept) * new

        def scaled(
            gradient: Float[Array, "*shape"],
            rows: Float[Array, "..."],
            columns: Float[Array, "..."],
            param: Float[Array, "*shape"],
            m: Matrix,
        ) -> Float[Array, "*shape"]:
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
            case "a":
                return Matrix(tuple(range(1, param.ndim - 1)), (param.ndim - 1,))
            case "b":
                return Matrix((1,), tuple(range(2, param.ndim)))
        stacked = path[0].key == "blocks"
        return Matrix(tuple(range(stacked, param.ndim)), ())

    return jax.tree_util.tree_map_with_path(axes, params)


def _root_mean_square(x: Float[Array, "..."], matrix: Matrix) -> Float[Array, "..."]:
    """The root mean square of each matrix of ``x``; the axes of the matrices keep length 1."""
    return jnp.sqrt(jnp.mean(x**2, (*matrix.inputs, *matrix.outputs), keepdims=True))


NOT_DECAYED = ("bias", "scale")
MUON_MOMENTUM = 0.95
MUON_SIZE = 0.2
"""Root mean square of Muon's updates: about that of AdamW's, so AdamW's learning rates work."""


def learning_rate_schedule(section: OptimizerSection, steps: int) -> optax.Schedule:
    """Learning rate of the update with index 0, 1, ..., ``steps`` - 1.

    The warm-up rises linearly from zero; no update has the rate zero itself. Update
    ``warmup_steps`` - 1 has the peak rate, and the last update has ``min_lr_ratio`` of it
    (`constant` stays at the peak). With restarts the rate falls several times, each time over the
    same number of steps (Loshchilov & Hutter 2017, arXiv 1608.03983, with a constant period).

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
            fall = optax.cosine_decay_schedule(peak, period, alpha=section.min_lr_ratio)
        case "linear":
            fall = optax.linear_schedule(peak, peak * section.min_lr_ratio, period)
        case "constant":
            fall = optax.constant_schedule(peak)

    def rate(index: int | Int[Array, ""]) -> Float[Array, ""]:
        done = index + 1 - warmup
        fallen = fall(done - period * jnp.floor(jnp.maximum(done - 1, 0) / period))
        return jnp.where(done < 0, peak * (index + 1) / max(warmup, 1), fallen)

    return rate


def make_optimizer(section: OptimizerSection, steps: int) -> optax.GradientTransformationExtraArgs:
    """The optimizer for a model's parameters, which are a nested dict.

    Its update takes the ``index`` of the step, on which the learning rates depend: skipped steps do
    not delay the schedule. Frozen parts are left out of its state and its updates. The state has
    one or two arrays per parameter, shaped like it or with axes of size 1; `adamw` is
    ``torch.optim.AdamW``.

    Raises:
        UserError: the warm-up or the embeddings-only phase is not shorter than the run.
    """
    schedule = learning_rate_schedule(section, steps)
    if section.embeddings_only_steps >= steps:
        raise UserError(
            f"optimizer.embeddings_only_steps is {section.embeddings_only_steps}, which must be "
            f"less than train.steps, {steps}: to train the embeddings alone, set the other "
            "optimizer.lr_multipliers to 0."
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
        return chain.update(trainable(updates, section), state, trainable(params, section), **extra)

    return optax.GradientTransformationExtraArgs(
        lambda params: chain.init(trainable(params, section)), update
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
    """Muon (Jordan et al. 2024) with updates as large as AdamW's (Liu et al. 2025, 2502.16982)."""

    def axes(path: tuple[Any, ...], _: Any) -> contrib.MuonDimensionNumbers:
        return contrib.MuonDimensionNumbers(*KERNELS[path[-2].key])

    def resize(path: tuple[Any, ...], update: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
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
    """Turn updates into descent steps, each part of the model at its own learning rate."""

    def part_rate(part: str, index: int | Int[Array, ""]) -> Float[Array, ""]:
        rate = section.lr_multipliers.get(GROUPS[part], 1) * schedule(index)
        if section.embeddings_only_steps and GROUPS[part] != "embeddings":
            alone, warmup = section.embeddings_only_steps, max(section.warmup_steps, 1)
            rate = rate * jnp.clip((index + 1 - alone) / warmup, 0, 1)
        return rate

    def update(
        updates: dict[str, PyTree],
        state: optax.EmptyState,
        params: PyTree = None,
        *,
        index: int | Int[Array, ""],
        **_: Any,
    ) -> tuple[PyTree, optax.EmptyState]:
        def step(path: tuple[Any, ...], update: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
            rate = part_rate(path[0].key, index)
            if path[0].key == "blocks" and section.layer_decay < 1:
                factors = layer_factors(update.shape[0], section.layer_decay)
                update = update * factors.reshape(-1, *[1] * (update.ndim - 1))
            return -rate * update

        return jax.tree_util.tree_map_with_path(step, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def layer_factors(layers: int, decay: float) -> Float[np.ndarray, " layers"]:
    """Learning-rate factor of each layer: ``decay`` to the power of its distance to the nearer end.

    Howard & Ruder (2018, arXiv 1801.06146, section 3.2) let the rate fall from the output to the
    input, for a new task with known words. Here the words are new: the first layers read them and
    the last ones write them. Which is better was not measured.
    """
    index = np.arange(layers)
    return np.float32(decay) ** np.minimum(index, layers - 1 - index)


def is_decayed(params: PyTree) -> PyTree[bool]:
    """True for kernels and embeddings, False for parameters named `bias` or `scale`.

    The name decides, not the rank: the layers are stacked, so their biases are matrices.
    """

    def decayed(path: tuple[Any, ...], _: Any) -> bool:
        return path[-1].key not in NOT_DECAYED

    return jax.tree_util.tree_map_with_path(decayed, params)
