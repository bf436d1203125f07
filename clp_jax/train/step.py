"""One optimizer step as one compiled function: loss, gradients, update, on any mesh."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from clp_jax.config import RunConfig
from clp_jax.loss import next_token_loss
from clp_jax.mesh import BATCH, batch_sharding, replicated
from clp_jax.train.documents import document_numbers, document_positions
from clp_jax.train.optimizer import learning_rate_schedule

Batch = dict[str, Array]


def abstract_optimizer(
    optimizer: optax.GradientTransformation, params: PyTree, mesh: Mesh
) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and shardings of the optimizer's state: each array lies as its parameter does.

    Args:
        optimizer: The optimizer.
        params: Parameters, or their ``jax.ShapeDtypeStruct``, with shardings.
        mesh: The mesh, over which counters are replicated.
    """
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda leaf, param: _placed(leaf, param.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda leaf: _placed(leaf, replicated(mesh)),
    )


def initialize_optimizer(
    optimizer: optax.GradientTransformation, params: PyTree, mesh: Mesh
) -> PyTree:
    """The optimizer's first state, made where it belongs."""
    shardings = _shardings(abstract_optimizer(optimizer, params, mesh))
    return jax.jit(optimizer.init, out_shardings=shardings)(params)


def make_train_step(
    graphdef: nnx.GraphDef,
    params: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    config: RunConfig,
    eos_id: int,
) -> jax.stages.Compiled:
    """Compile one optimizer step; nothing needs to exist yet but the devices' descriptions.

    The loss is the mean negative log-likelihood over the tokens that the mask lets through. With
    accumulation, losses and gradients are summed part by part and divided once by the tokens of
    the whole batch, so the number of parts does not change the result, however uneven the masks.
    Dropout depends on the seed and on the step's index alone: no generator state exists.

    Args:
        graphdef: Structure of the model, from ``nnx.split``; its dtype is that of the computation.
        params: The float32 parameters as a nested dict, or their ``jax.ShapeDtypeStruct``, with
            shardings.
        optimizer: The optimizer.
        mesh: The mesh of all arrays.
        config: The run's configuration.
        eos_id: The id that opens a document, for `data.document_mask`.

    Returns:
        ``step(params, optimizer_state, index, batch)`` -> parameters, optimizer state, metrics.
        The first two arguments are donated. ``index`` is an int32 scalar from 0. ``batch`` holds
        ``tokens`` int32 [batch, length + 1] and ``mask`` bool [batch, length]. The metrics are
        float32 scalars: ``loss`` (nats a token), ``gradient_norm`` (before clipping),
        ``learning_rate`` and ``tokens``.
    """
    train, data = config.train, config.data
    schedule = learning_rate_schedule(config.optimizer, train.steps)
    shardings = _shardings(params)
    optimizer_state = abstract_optimizer(optimizer, params, mesh)

    def part_loss(
        params: PyTree,
        tokens: Int[Array, "part tokens"],
        mask: Bool[Array, "part length"],
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        model, inputs = nnx.merge(graphdef, params), tokens[:, :-1]
        hidden = model.hidden_states(
            inputs,
            segments=document_numbers(inputs, eos_id) if data.document_mask else None,
            positions=document_positions(inputs, eos_id) if data.restart_positions else None,
            dropout_key=key,
            remat=train.remat,
        )
        return next_token_loss(
            hidden, model.output_embedding(), tokens[:, 1:], mask, chunk=train.loss_chunk
        )

    def train_step(
        params: PyTree, optimizer_state: PyTree, index: Int[Array, ""], batch: Batch
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(train.seed), index)

        def add_part(sums: PyTree, part: tuple[Array, Array, Array]) -> tuple[PyTree, None]:
            number, tokens, mask = part
            (loss, count), gradients = jax.value_and_grad(part_loss, has_aux=True)(
                params, tokens, mask, jax.random.fold_in(key, number)
            )
            gradients = jax.lax.with_sharding_constraint(gradients, shardings)
            return jax.tree.map(jnp.add, sums, (gradients, loss, count)), None

        nothing = (jax.tree.map(jnp.zeros_like, params), jnp.float32(0), jnp.float32(0))
        parts = (
            jnp.arange(train.accumulation),
            _in_parts(batch["tokens"], train.accumulation, mesh),
            _in_parts(batch["mask"], train.accumulation, mesh),
        )
        (gradients, loss, tokens), _ = jax.lax.scan(add_part, nothing, parts)
        gradients = jax.tree.map(lambda g: g / tokens, gradients)

        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        metrics = {
            "loss": loss / tokens,
            "gradient_norm": optax.tree_utils.tree_norm(gradients),
            "learning_rate": jnp.float32(schedule(index)),
            "tokens": tokens,
        }
        return optax.apply_updates(params, updates), optimizer_state, metrics

    step = jax.jit(
        train_step,
        donate_argnums=(0, 1),
        out_shardings=(shardings, _shardings(optimizer_state), replicated(mesh)),
    )
    index = jax.ShapeDtypeStruct((), jnp.int32)
    with jax.set_mesh(mesh):
        return step.lower(params, optimizer_state, index, _abstract_batch(config, mesh)).compile()


def _abstract_batch(config: RunConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    rows, length = config.train.batch_size, config.data.sequence_length
    tokens = jax.ShapeDtypeStruct((rows, length + 1), jnp.int32, sharding=batch_sharding(mesh))
    mask = jax.ShapeDtypeStruct((rows, length), jnp.bool_, sharding=batch_sharding(mesh))
    return {"tokens": tokens, "mask": mask}


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shardings(tree: PyTree) -> PyTree[NamedSharding]:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _in_parts(
    rows: Shaped[Array, "batch length"], parts: int, mesh: Mesh
) -> Shaped[Array, "parts part length"]:
    """Every ``parts``-th row makes a part, so that each device keeps the rows it holds."""
    split = rows.reshape(rows.shape[0] // parts, parts, rows.shape[1]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(split, NamedSharding(mesh, PartitionSpec(None, BATCH)))
