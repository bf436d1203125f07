"""What each policy of `train.remat` costs: memory on a TPU, operations done twice, time here.

Memory is told by the TPU's own compiler, which needs libtpu and no TPU; the operations are counted
in the program of the gradient; the time is that of a small model on this machine's devices:

    JAX_PLATFORMS=cpu python scripts/bench_remat.py
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import jaxprs_in_params

from clp_jax.config import Remat, RunConfig
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import make_mesh
from clp_jax.models import abstract_model, initialize, read_decoder_config
from clp_jax.plan import GIB, TooLarge, plan_run
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import initialize_optimizer, make_train_step

POLICIES = get_args(Remat)
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
GPT2 = {"model_type": "gpt2", "n_positions": 1024, **NO_DROPOUT}
MODELS = {
    "gpt2": GPT2 | {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "bloom-560m": {
        "model_type": "bloom",
        "vocab_size": 250880,
        "hidden_size": 1024,
        "n_layer": 24,
        "n_head": 16,
    },
}
SMALL = GPT2 | {"vocab_size": 512, "n_embd": 256, "n_layer": 4, "n_head": 4}
LENGTH = 1024


def run_config(folder: str, remat: str, rows: int, dtype: str = "bfloat16") -> RunConfig:
    train = {"out": "none", "steps": 1000, "batch_size": rows, "remat": remat, "dtype": dtype}
    data = {"train": "none", "sequence_length": LENGTH}
    return RunConfig.from_dict({"model": {"path": folder}, "data": data, "train": train})


def memory(model: str, remat: str, accelerator: str, rows: int) -> str:
    """What a step needs beside parameters, optimizer and batch."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODELS[model]))
        try:
            plan = plan_run(run_config(folder, remat, rows), accelerator)
        except TooLarge:
            return "does not fit"
    return f"{plan.temporary_bytes / GIB:.2f} GiB"


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
    config = run_config("none", remat, 4, "float32")
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    graphdef, state = nnx.split(initialize(read_decoder_config(SMALL), seed=0, mesh=mesh))
    params = nnx.to_pure_dict(state)
    step = make_train_step(graphdef, params, optimizer, mesh=mesh, config=config, eos_id=0)
    carried = [params, initialize_optimizer(optimizer, params, mesh)]
    batch = {
        "tokens": jnp.zeros((4, LENGTH + 1), jnp.int32),
        "mask": jnp.ones((4, LENGTH), bool),
    }

    def take() -> Any:
        *carried[:], metrics = step(*carried, jnp.int32(0), batch)
        return jax.block_until_ready(metrics)

    return take


def times(repeats: int) -> dict[str, float]:
    """Median seconds of a step by policy; the policies take turns."""
    steps = {remat: small_step(remat) for remat in POLICIES}
    seconds: dict[str, list[float]] = {remat: [] for remat in POLICIES}
    for _ in range(repeats + 1):
        for remat, take in steps.items():
            start = time.perf_counter()
            take()
            seconds[remat].append(time.perf_counter() - start)
    return {remat: float(np.median(values[1:])) for remat, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accelerator", default="v5litepod-8", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=64, help="sequences; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    small = times(arguments.repeats)
    rows = []
    for remat in POLICIES:
        figures = [f"`{remat}`"]
        for model in MODELS:
            again = gradient_flops(model, remat) / gradient_flops(model, "none") - 1
            temporary = memory(model, remat, arguments.accelerator, arguments.rows)
            figures += [temporary, f"{again:+.1%}"]
        rows.append((*figures, f"{small[remat] / small['none']:.2f}"))
    columns = [f"{model}: {what}" for model in MODELS for what in ("memory a chip", "operations")]
    print(markdown_table(("remat", *columns, "time, small model"), rows))
    print(
        f"\n{date.today()}, {arguments.accelerator} with FSDP, {arguments.rows} sequences of "
        f"{LENGTH} tokens; time on {jax.devices()[0]}; JAX {version('jax')}, "
        f"libtpu {version('libtpu')}"
    )


if __name__ == "__main__":
    main()
