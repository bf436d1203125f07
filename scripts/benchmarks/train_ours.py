"""The side of clp_jax in scripts/benchmarks/train.py, which calls it in new processes."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import fastest

from clp_jax.checkpoint.hf import load_model
from clp_jax.config import RunConfig
from clp_jax.mesh import make_mesh, peak_flops, shard_batch
from clp_jax.models import abstract_model, abstract_parameters
from clp_jax.train.loop import train_model
from clp_jax.train.metrics import read_metrics
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import initialize_optimizer, make_train_step

WARM_UP = 2
"""Steps before the clock starts; their losses are compared with the peer's."""


class Step:
    """The compiled step of a run's configuration, with the model and tokens of the folder."""

    def __init__(self, config: RunConfig, folder: Path):
        mesh = make_mesh(**config.mesh.sizes)
        model = load_model(folder / "model", mesh=mesh, dtype=jnp.float32)
        abstract = abstract_model(model.config, dtype=jnp.dtype(config.train.dtype))
        optimizer = make_optimizer(config.optimizer, config.train.steps)
        self.params = nnx.to_pure_dict(nnx.state(model))
        self.state = initialize_optimizer(optimizer, self.params, mesh)
        self.compiled = make_train_step(
            nnx.graphdef(abstract),
            abstract_parameters(abstract, mesh),
            optimizer,
            mesh=mesh,
            config=config,
            eos_id=0,
        )
        rows, length = config.train.batch_size, config.data.sequence_length
        tokens = np.load(folder / "tokens.npy")[:rows]
        arrays = {"tokens": tokens, "mask": np.ones((rows, length), bool)}
        self.batch = {key: shard_batch(value, mesh) for key, value in arrays.items()}
        self.flops = model.flops_per_token(length) * rows * length

    def losses(self, steps: int) -> list[float]:
        """Take steps on the same batch; the losses come when all are done."""
        losses = []
        for index in range(steps):
            self.params, self.state, metrics = self.compiled(
                self.params, self.state, np.int32(index), self.batch
            )
            losses.append(metrics["loss"])
        jax.block_until_ready(self.params)
        return [float(loss) for loss in losses]

    def seconds(self, steps: int) -> float:
        """Mean time of a step."""
        began = time.perf_counter()
        self.losses(steps)
        return (time.perf_counter() - began) / steps


def measured_flops() -> float:
    """Rate of a float32 product of two matrices, the best of some."""
    size = 2048
    matrix = jnp.ones((size, size))
    return 2 * size**3 / fastest(lambda: jnp.matmul(matrix, matrix))


def none_where_memory_ends(measure: Callable[..., Any]) -> Callable[..., Any]:
    """Return None where the device has not enough memory."""

    @wraps(measure)
    def measured(*arguments: Any) -> Any:
        try:
            return measure(*arguments)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None

    return measured


@none_where_memory_ends
def step(config: RunConfig, folder: Path, steps: int) -> dict[str, Any]:
    """Time and operations of the compiled step, and the peak memory of an accelerator."""
    device = jax.devices()[0]
    peak_rate = peak_flops(device.device_kind) or measured_flops()
    run = Step(config, folder)
    figures = {
        "losses": run.losses(WARM_UP),
        "seconds": run.seconds(steps),
        "flops": run.flops,
        "peak_flops": peak_rate,
    }
    memory = device.memory_stats()
    return figures | ({"peak": memory["peak_bytes_in_use"]} if memory else {})


@none_where_memory_ends
def loop(config: RunConfig, folder: Path, steps: int) -> dict[str, Any]:
    """Seconds per step of the whole training loop, and of the compiled step by itself, in turns."""
    alone, whole = [], []
    run = Step(config, folder)
    run.losses(WARM_UP)
    tokens = config.train.batch_size * config.data.sequence_length
    for _ in range(3):
        alone.append(run.seconds(steps))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            train = config.train.model_copy(update={"out": f"{scratch}/run"})
            train_model(config.model_copy(update={"train": train}))
            lines = read_metrics(train.out)
        whole += [tokens / line["speed/tokens_per_second"] for line in lines[1:]]
    return {"alone": median(alone), "whole": median(whole)}


@none_where_memory_ends
def profile(config: RunConfig, folder: Path, steps: int) -> dict[str, Any]:
    """Seconds of a step by what the device was busy with."""
    run = Step(config, folder)
    run.losses(WARM_UP)
    with tempfile.TemporaryDirectory() as scratch:
        with jax.profiler.trace(scratch):
            run.losses(steps)
        (file,) = Path(scratch).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")] or planes
    busy: Counter[str] = Counter()
    for plane in devices:
        for line in plane.lines:
            if plane.name.startswith("/host") or line.name.startswith("Stream"):
                for event in line.events:
                    busy[event.name] += event.duration_ns / 1e9 / steps
    return {"busy": dict(busy.most_common())}
