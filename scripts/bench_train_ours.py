"""The side of clp_jax in scripts/bench_train.py, which starts it: figures as JSON."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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
    """Rate of a float32 product of two matrices, the best of ten."""
    size = 2048
    matrix = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


def process_memory(field: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most so far."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def peak_memory() -> int:
    """Most bytes held so far: of the accelerator, or of this process on a CPU."""
    statistics = jax.devices()[0].memory_stats()
    if statistics:
        return statistics["peak_bytes_in_use"]
    return process_memory("VmHWM")


def step(config: RunConfig, folder: Path, steps: int) -> dict[str, Any]:
    """Time and memory of the compiled step."""
    device = jax.devices()[0]
    peak = peak_flops(device.device_kind) or measured_flops()
    before = process_memory("VmRSS") if device.platform == "cpu" else 0
    run = Step(config, folder)
    return {
        "losses": run.losses(WARM_UP),
        "seconds": run.seconds(steps),
        "peak_bytes": peak_memory() - before,
        "flops": run.flops,
        "peak_flops": peak,
        "device": device.device_kind,
    }


def loop(config: RunConfig, folder: Path, steps: int) -> dict[str, Any]:
    """Seconds a step of the whole training loop, and of the compiled step by itself, in turns."""
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
    return {"alone": statistics.median(alone), "whole": statistics.median(whole)}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("step", "loop", "profile"))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", required=True)
    parser.add_argument("--dtype", required=True)
    options, overrides = parser.parse_known_args()
    length = np.load(options.folder / "tokens.npy", mmap_mode="r").shape[1] - 1
    settings = {
        "model.path": options.folder / "model",
        "model.init": "random",
        "data.train": options.folder / "corpus",
        "data.sequence_length": length,
        "optimizer.schedule": "constant",
        "train.out": "none",
        "train.steps": 3 * options.steps,
        "train.log_every": options.steps,
        "train.batch_size": options.batch,
        "train.dtype": options.dtype,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    config = RunConfig.from_yaml(None, [*flags, *overrides])
    try:
        measure = {"step": step, "loop": loop, "profile": profile}[options.what]
        figures = measure(config, options.folder, options.steps)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        figures = {"out_of_memory": True}
    print(json.dumps(figures | {"version": f"jax {jax.__version__}"}))


if __name__ == "__main__":
    sys.exit(main())
