"""What each policy of `train.remat` costs: memory on a TPU, operations done twice, time here.

The TPU's own compiler reports the memory, which needs libtpu and no TPU; the operations are counted
in the program of the gradient; the time is that of a small model on this machine's devices:

    JAX_PLATFORMS=cpu python scripts/benchmarks/remat.py
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import gib, print_machine, print_table, ratio, times_in_turns
from jax.extend.core import jaxprs_in_params
from models import MODELS, gpt2, run_config

from clp_jax.config import Remat
from clp_jax.mesh import make_mesh
from clp_jax.models import abstract_model, initialize, read_decoder_config
from clp_jax.plan import TooLarge, plan_run
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import initialize_optimizer, make_train_step

POLICIES = get_args(Remat)
PLANNED = "gpt2", "bloom-560m"
SMALL = gpt2(256, 4, 4, vocabulary=512)
LENGTH = 1024


def memory(model: str, remat: str, accelerator: str, rows: int) -> str:
    """What a step needs on top of parameters, optimizer and batch."""
    train = {"batch_size": rows, "remat": remat, "dtype": "bfloat16"}
    with run_config(MODELS[model], LENGTH, **train) as config:
        try:
            return f"{gib(plan_run(config, accelerator).temporary_bytes)} GiB"
        except TooLarge:
            return "does not fit"


def product_flops(jaxpr: Any) -> int:
    """Operations of the matrix products of a program, loops included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = np.prod([shape[axis] for axis in contracted], dtype=int)
            total += 2 * int(inner) * equation.outvars[0].aval.size
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(product_flops(part) for part in jaxprs_in_params(equation.params))
    return total


def gradient_flops(model: str, remat: str) -> int:
    """Operations of the gradient of the layers for one sequence."""
    graphdef, params = nnx.split(abstract_model(read_decoder_config(MODELS[model])))

    def total(params: Any, tokens: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params).hidden_states(tokens, remat=remat).sum()

    tokens = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32)
    return product_flops(jax.make_jaxpr(jax.grad(total))(params, tokens).jaxpr)


def small_step(remat: str) -> Callable[[], Any]:
    """A function that takes a step of a small model."""
    mesh = make_mesh(devices=jax.devices()[:1])
    graphdef, state = nnx.split(initialize(read_decoder_config(SMALL), seed=0, mesh=mesh))
    params = nnx.to_pure_dict(state)
    with run_config(SMALL, LENGTH, batch_size=4, remat=remat, dtype="float32") as config:
        optimizer = make_optimizer(config.optimizer, config.train.steps)
        step = make_train_step(graphdef, params, optimizer, mesh=mesh, config=config, eos_id=0)
    carried = [params, initialize_optimizer(optimizer, params, mesh)]
    batch = {
        "tokens": jnp.zeros((4, LENGTH + 1), jnp.int32),
        "mask": jnp.ones((4, LENGTH), bool),
    }

    def take() -> Any:
        *carried[:], metrics = step(*carried, jnp.int32(0), batch)
        return metrics

    return take


def rows_of(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    times = times_in_turns(options.repeats, {remat: small_step(remat) for remat in POLICIES})
    for remat in POLICIES:
        figures = []
        for model in PLANNED:
            again = gradient_flops(model, remat) / gradient_flops(model, "none") - 1
            figures += [memory(model, remat, options.accelerator, options.rows), f"{again:+.1%}"]
        yield f"`{remat}`", *figures, ratio(times[remat], times["none"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accelerator", default="v5litepod-8", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=64, help="sequences; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    print_machine("libtpu")
    print(f"{options.accelerator} with FSDP, {options.rows} sequences of {LENGTH:,} tokens\n")
    columns = (f"{model}: {what}" for model in PLANNED for what in ("memory per chip", "again"))
    print_table(("remat", *columns, "time of `none`, small model"), rows_of(options))


if __name__ == "__main__":
    main()
