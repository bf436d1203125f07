"""Short training of new tables with the body frozen, to rank methods by what it makes of them.

Adam (Kingma & Ba 2015) with decay rates 0.9 and 0.95, as AdamW without decay. The learning rate
falls linearly from `RATE` of a table's root mean square to zero, so it suits tables of any scale.
Each step takes `BATCH` windows of the sample's first half, and there is no randomness.
"""

from collections.abc import Mapping
from functools import partial
from itertools import cycle, islice

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from clp_jax.loss import WINDOW_CHUNK, next_token_loss
from clp_jax.mesh import to_host
from clp_jax.models import Decoder
from clp_jax.transfer.calibration import Evaluator, Tables, replaced

RATE = 0.01
"""The first learning rate, relative to the root mean square of the table's values."""

ADAM = optax.scale_by_adam(b1=0.9, b2=0.95)
OnDevices = Mapping[str, Float[Array, "row dim"]]


def train_tables(evaluator: Evaluator, tables: Tables, steps: int) -> Tables:
    """The tables after some steps of training, all other parameters unchanged.

    Args:
        evaluator: the body and the text.
        tables: the tables by name; unchanged.
        steps: the number of steps. If the text has fewer batches, they repeat.
    """
    # A copy, since each step gives the memory of its tables to the next.
    trained: OnDevices = jax.tree.map(jnp.copy, evaluator.placed(tables))
    rates = {path: RATE * jnp.sqrt(jnp.mean(table**2)) for path, table in trained.items()}
    state = ADAM.init(trained)
    with jax.set_mesh(evaluator.mesh):
        batches = cycle([*evaluator.batches(evaluator.sample.calibration)])
        for index, (batch, mask) in enumerate(islice(batches, steps)):
            part = 1 - index / steps
            now = {path: part * rate for path, rate in rates.items()}
            trained, state = _step(
                evaluator.graphdef, evaluator.params, trained, state, now, batch, mask
            )
    return {name: to_host(trained[path]) for name, path in evaluator.paths.items()}


@partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def _step(
    graphdef: nnx.GraphDef[Decoder],
    params: nnx.State,
    tables: OnDevices,
    state: optax.OptState,
    rates: Mapping[str, Float[Array, ""]],
    tokens: Int[Array, "batch length"],
    mask: Bool[Array, "batch predicted"],
) -> tuple[OnDevices, optax.OptState]:
    """One step: the tables and the optimizer's state after it."""

    def mean_loss(tables: OnDevices) -> Float[Array, ""]:
        model = nnx.merge(graphdef, replaced(params, tables))
        total, sums = next_token_loss(
            model.hidden_states(tokens[:, :-1], remat="full"),
            model.output_embedding(),
            tokens[:, 1:],
            mask,
            chunk=WINDOW_CHUNK,
            softcap=model.config.final_softcap,
        )
        return total / sums.tokens

    updates, state = ADAM.update(jax.grad(mean_loss)(tables), state)
    return jax.tree.map(lambda x, rate, up: x - rate * up, tables, rates, updates), state
