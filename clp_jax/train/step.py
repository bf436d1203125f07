"""One optimizer step as one compiled function: loss, gradients, update, on any mesh."""

from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from clp_jax.config import RunConfig
from clp_jax.loss import LossSums, next_token_loss, token_losses
from clp_jax.mesh import BATCH, batch_sharding, replicated
from clp_jax.models.lora import joined
from clp_jax.train.anomalies import Health, check_step
from clp_jax.train.distillation import Lesson, give_lesson, lesson_metrics
from clp_jax.train.optimizer import group_norms, learning_rate_schedule, trainable
from clp_jax.train.rows import of_rows
from clp_jax.train.teacher import Teacher


def document_numbers(tokens: Int[Array, "batch length"], eos_id: int) -> Int[Array, "batch length"]:
    """The document number of each token: the count of ``eos_id`` up to and including it.

    An ``eos_id`` opens the document that follows it.
    """
    return jnp.cumsum(tokens == eos_id, axis=1)


def document_positions(
    tokens: Int[Array, "batch length"], eos_id: int
) -> Int[Array, "batch length"]:
    """Position of each token in its document, or in the part of it that the sequence contains."""
    positions = jnp.arange(tokens.shape[1])[None, :]
    starts = jnp.where(tokens == eos_id, positions, 0)
    return positions - jax.lax.cummax(starts, axis=1)


Batch = dict[str, Any]
Sums = tuple[LossSums, dict[str, Float[Array, ""]]]
"""The terms of the loss, and those of a teacher's, summed."""


class OptimizerState(NamedTuple):
    """What a step passes to the next one, in addition to the parameters."""

    updates: optax.OptState
    """The optimizer's own state."""
    health: Health
    """The running level of the gradient norms."""


def abstract_optimizer(
    optimizer: optax.GradientTransformation, params: PyTree, mesh: Mesh
) -> OptimizerState:
    """Shapes and shardings of the optimizer's state: each array is sharded like its parameter.

    An array belongs to the parameter whose path is the end of its own path. Axes of size 1, along
    which an optimizer keeps a mean, are not sharded.

    Args:
        optimizer: The optimizer.
        params: Parameters, or their ``jax.ShapeDtypeStruct``, with shardings.
        mesh: The mesh, over which counters are replicated.
    """
    owners = {
        _dict_keys(path): param for path, param in jax.tree_util.tree_leaves_with_path(params)
    }

    def placed(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        owner = owners.get(_dict_keys(path))
        if owner is None:
            return _placed(leaf, replicated(mesh))
        sizes = zip(owner.sharding.spec, leaf.shape, owner.shape, strict=False)
        spec = [axis if size == whole else None for axis, size, whole in sizes]
        return _placed(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    state = jax.eval_shape(lambda p: OptimizerState(optimizer.init(p), Health.new()), params)
    return jax.tree_util.tree_map_with_path(placed, state)


def initialize_optimizer(
    optimizer: optax.GradientTransformation, params: PyTree, mesh: Mesh
) -> OptimizerState:
    """The optimizer's initial state, created with its final shardings."""

    def create(params: PyTree) -> OptimizerState:
        return OptimizerState(optimizer.init(params), Health.new())

    shardings = _shardings(abstract_optimizer(optimizer, params, mesh))
    return jax.jit(create, out_shardings=shardings)(params)


def make_train_step(
    graphdef: nnx.GraphDef,
    params: PyTree,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    mesh: Mesh,
    config: RunConfig,
    eos_id: int,
    teacher: Teacher | None = None,
    trained_rows: Bool[np.ndarray, " vocab"] | None = None,
) -> jax.stages.Compiled:
    """Compile one optimizer step; no array has to exist yet, and devices may be descriptions.

    The loss is the mean negative log-likelihood over the tokens where the mask is true. With
    accumulation, losses and gradients are summed over the microbatches and divided once by the
    tokens of the whole batch, so their number does not change the result, however uneven the masks.
    Dropout depends only on the seed and the step's index: there is no generator state.

    Args:
        graphdef: Structure of the model, from ``nnx.split``; its dtype is the compute dtype.
        params: The float32 parameters as a nested dict, or their ``jax.ShapeDtypeStruct``, with
            shardings.
        optimizer: The optimizer.
        mesh: The mesh of all arrays.
        config: The run's configuration.
        eos_id: The id that opens a document, for `data.document_mask`.
        teacher: The source, if it teaches the embeddings.
        trained_rows: The rows of the embeddings that are trained; None: all. If there are others,
            a norm of the embeddings, as BLOOM has one, stays too.

    Returns:
        ``step(params, optimizer_state, index, batch)`` -> parameters, optimizer state, metrics.
        The first two arguments are donated. ``index`` is an int32 scalar from 0. ``batch`` holds
        ``tokens`` int32 [batch, length + 1] and ``mask`` bool [batch, length]; with a teacher also
        ``source_tokens`` int32 [batch, source length], ``positions`` int32 [batch, length + 1] and
        ``teacher``, its embeddings. The metrics are float32 scalars: ``loss`` (nats per token, if
        the next token has a part in the loss),
        ``gradient_norm`` (before clipping; of all parameters, and as ``gradient_norm/GROUP`` of
        each group), ``learning_rate``, ``tokens``, ``skipped`` (1 if nothing changed because the
        loss or the gradient was not finite or the gradient was a spike), ``spike`` (1 if it was a
        spike), if enabled ``z_loss``, which is not part of ``loss``, and with a teacher those of
        `lesson_metrics`.
    """
    train, data = config.train, config.data
    schedule = learning_rate_schedule(config.optimizer, train.steps)
    shardings = _shardings(params)
    trainable_shardings = trainable(shardings, config.optimizer)
    optimizer_state = abstract_optimizer(optimizer, params, mesh)

    def hidden_states(
        model: Any,
        layers: set[int],
        tokens: Int[Array, "microbatch length"],
        eos_id: int,
        key: PRNGKeyArray | None,
    ) -> dict[int, Float[Array, "microbatch length embed"]]:
        return model.hidden_states_after(
            layers,
            tokens,
            segments=document_numbers(tokens, eos_id) if data.document_mask else None,
            positions=document_positions(tokens, eos_id) if data.restart_positions else None,
            dropout_key=key,
            remat=train.remat,
        )

    def microbatch_loss(
        free: PyTree, params: PyTree, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Sums]:
        model, tokens = nnx.merge(graphdef, joined(params, free)), batch["tokens"]
        final = model.config.num_layers
        own = {final} if teacher is None else teacher.layers[0]
        hidden = hidden_states(model, own, tokens[:, :-1], eos_id, key)
        head, softcap = model.output_embedding(), model.config.final_softcap
        losses = partial(token_losses, chunk=train.loss_chunk, softcap=softcap)
        lesson = Lesson(0.0, None, {})
        if teacher is not None:
            source = nnx.merge(teacher.graphdef, params | batch["teacher"])
            end = teacher.tokenizer.separator()
            known = hidden_states(source, teacher.layers[1], batch["source_tokens"], end, None)
            lesson = give_lesson(
                config.teacher,
                (hidden, known),
                (head, source.output_embedding()),
                batch,
                layer=teacher.layer,
                final=final,
                losses=losses,
                eos_id=eos_id,
            )
        if not config.predicts:
            nothing = jnp.float32(0)
            counted = jnp.sum(batch["mask"], dtype=jnp.float32)
            return nothing + lesson.loss, (LossSums(nothing, nothing, counted), lesson.sums)
        objective, terms = next_token_loss(
            hidden[final],
            head,
            tokens[:, 1:],
            batch["mask"],
            chunk=train.loss_chunk,
            z_loss=train.z_loss,
            softcap=softcap,
            weights=lesson.weights,
        )
        return objective + lesson.loss, (terms, lesson.sums)

    def summed_gradients(
        free: PyTree, params: PyTree, index: Int[Array, ""], batch: Batch
    ) -> tuple[PyTree, Sums]:
        """The gradients of the trainable parameters and the loss terms, summed over the batch."""
        key = jax.random.fold_in(jax.random.key(train.seed), index)
        rows = dict(batch)
        embeddings = rows.pop("teacher", None)

        def microbatch_sums(number: int | Int[Array, ""], rows: Batch) -> tuple[PyTree, Sums]:
            (_, sums), gradients = jax.value_and_grad(microbatch_loss, has_aux=True)(
                free, params, rows | {"teacher": embeddings}, jax.random.fold_in(key, number)
            )
            return jax.lax.with_sharding_constraint(gradients, trainable_shardings), sums

        count = train.gradient_accumulation_steps
        if count == 1:
            return microbatch_sums(0, rows)
        microbatches = (
            jnp.arange(count),
            {name: _in_microbatches(array, count, mesh) for name, array in rows.items()},
        )
        first = jax.tree.map(lambda x: x[0], microbatches)
        _, shapes = jax.eval_shape(microbatch_sums, *first)
        no_sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        nothing = (jax.tree.map(jnp.zeros_like, free), no_sums)
        return jax.lax.scan(
            lambda sums, one: (jax.tree.map(jnp.add, sums, microbatch_sums(*one)), None),
            nothing,
            microbatches,
        )[0]

    def train_step(
        params: PyTree, state: OptimizerState, index: Int[Array, ""], batch: Batch
    ) -> tuple[PyTree, OptimizerState, dict[str, Float[Array, ""]]]:
        free = trainable(params, config.optimizer)
        gradients, (sums, taught) = summed_gradients(free, params, index, batch)
        gradients = jax.tree.map(lambda gradient: gradient / sums.tokens, gradients)
        if trained_rows is not None:
            zeros = jax.tree.map(jnp.zeros_like, gradients)
            gradients = of_rows(trained_rows, gradients, zeros)
        loss, norm = sums.loss / sums.tokens, optax.tree_utils.tree_norm(gradients)
        check, health = check_step(state.health, loss, norm, spike_factor=train.spike_factor)
        updates, stepped = optimizer.update(gradients, state.updates, params, index=index)
        trained = optax.apply_updates(free, updates)
        if trained_rows is not None:  # Weight decay changes rows without a gradient.
            trained = of_rows(trained_rows, trained, free)
        free, updates = jax.tree.map(
            lambda old, new: jnp.where(check.skipped, old, new),
            (free, state.updates),
            (trained, stepped),
        )
        metrics = {
            "gradient_norm": norm,
            "learning_rate": schedule(index),
            "tokens": sums.tokens,
            **check._asdict(),
            **{f"gradient_norm/{group}": n for group, n in group_norms(gradients).items()},
        }
        if config.predicts:
            metrics["loss"] = loss
        if train.z_loss:
            metrics["z_loss"] = train.z_loss * sums.z / sums.tokens
        metrics |= lesson_metrics(taught, sums.tokens)
        return (
            joined(params, free),
            OptimizerState(updates, health),
            jax.tree.map(jnp.float32, metrics),
        )

    step = jax.jit(
        train_step,
        donate_argnums=(0, 1),
        out_shardings=(shardings, _shardings(optimizer_state), replicated(mesh)),
    )
    index = jax.ShapeDtypeStruct((), jnp.int32)
    with jax.set_mesh(mesh):
        batch = _abstract_batch(config, mesh, teacher)
        return step.lower(params, optimizer_state, index, batch).compile()


def _abstract_batch(config: RunConfig, mesh: Mesh, teacher: Teacher | None) -> Batch:
    rows, length = config.train.batch_size, config.data.sequence_length

    def array(columns: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, columns), dtype, sharding=batch_sharding(mesh))

    batch = {"tokens": array(length + 1), "mask": array(length, jnp.bool_)}
    if teacher is None:
        return batch
    return batch | {
        "source_tokens": array(teacher.length),
        "positions": array(length + 1),
        "teacher": teacher.shapes(mesh),
    }


def _dict_keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The keys of the dicts at the end of a path."""
    keys = takewhile(lambda entry: isinstance(entry, jax.tree_util.DictKey), reversed(path))
    return tuple(entry.key for entry in keys)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shardings(tree: PyTree) -> PyTree[NamedSharding]:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _in_microbatches(
    rows: Shaped[Array, "batch length"], count: int, mesh: Mesh
) -> Shaped[Array, "count microbatch length"]:
    """Each microbatch takes every ``count``-th row, so that each device keeps the rows it holds."""
    split = rows.reshape(rows.shape[0] // count, count, rows.shape[1]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(split, NamedSharding(mesh, PartitionSpec(None, BATCH)))
