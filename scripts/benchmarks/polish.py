"""What a teacher costs: the step of polishing against a training step with the body frozen.

The source reads the same text, so a step has more operations; the counted ones are the floor of its
time. The TPU's own compiler reports the memory, which needs libtpu and no TPU; the time is that of
a small model on this machine's devices, in turns:

    JAX_PLATFORMS=cpu python scripts/benchmarks/polish.py
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import gib, print_machine, print_table, ratio, times_in_turns
from models import MODELS, llama, write_model_files

from clp_jax.config import RunConfig
from clp_jax.mesh import make_mesh, shard_batch
from clp_jax.models import abstract_model, initialize, read_decoder_config
from clp_jax.plan import plan_run
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import initialize_optimizer, make_train_step
from clp_jax.train.teacher import open_teacher

SMALL = llama(256, 684, 9, 4, 2, 6000, tie_word_embeddings=True)
"""Body and head in about the proportion of SmolLM2-135M."""
SMALL_LENGTH, SMALL_ROWS = 128, 8
FROZEN = "body frozen, no teacher"
LAYER = 3
"""Of the inner layer, the part of the depth below it: one in this many."""


def arms(layers: int) -> dict[str, Mapping[str, Any]]:
    """The section `teacher` of each arm, without its path."""
    inner = {"layer": layers // LAYER}
    return {
        FROZEN: {},
        "next token, final states": {"hidden_states": 1},
        f"next token, states of layer {inner['layer']}": {"hidden_states": 1, **inner},
        f"states of layer {inner['layer']} alone": {"next_token": 0, "hidden_states": 1, **inner},
        "likelihoods alone": {"next_token": 0, "hidden_states": 0, "likelihoods": 1},
        "all three, final states": {"hidden_states": 1, "likelihoods": 1},
    }


def polish_config(
    folder: Path, section: Mapping[str, Any], length: int, source: int, **train: Any
) -> RunConfig:
    """A run whose source is the model itself, in ``folder``."""
    teacher = {"path": str(folder), "sequence_length": source, **section} if section else {}
    frozen = {"layers": 0, "positions": 0, "final_norm": 0}
    return RunConfig.from_dict(
        {
            "model": {"path": str(folder)},
            "data": {"train": "none", "sequence_length": length},
            "optimizer": {"lr_multipliers": frozen},
            "teacher": teacher,
            "train": {"out": "none", "steps": 1000, **train},
        }
    )


def operations(shape: Mapping[str, Any], config: RunConfig) -> float:
    """Operations of a step per token of the new model, with recomputation of every layer."""
    decoder = read_decoder_config(dict(shape))
    model, teacher = abstract_model(decoder), open_teacher(config, decoder)
    layers = None if teacher is None else max(teacher.layers[0])
    again = model.forward_flops(config.data.sequence_length, layers)
    return step_flops_per_token(model, config, teacher) + again.products + again.attention


def small_step(config: RunConfig) -> Callable[[], Any]:
    """A function that takes a step of the small model."""
    mesh = make_mesh(devices=jax.devices()[:1])
    decoder = read_decoder_config(SMALL)
    model = initialize(decoder, seed=0, mesh=mesh)
    params = nnx.to_pure_dict(nnx.state(model))
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    teacher = open_teacher(config, decoder)
    step = make_train_step(
        nnx.graphdef(model), params, optimizer, mesh=mesh, config=config, eos_id=0, teacher=teacher
    )
    random, rows, length = np.random.default_rng(0), SMALL_ROWS, config.data.sequence_length
    batch: dict[str, Any] = {
        "tokens": random.integers(1, decoder.vocab_size, (rows, length + 1), np.int32),
        "mask": np.ones((rows, length), bool),
    }
    if teacher is not None:
        ends = np.arange(1, length + 2) * teacher.length // (length + 1) - 1
        batch["positions"] = np.tile(np.int32(ends), (rows, 1))
        shape = (rows, teacher.length)
        batch["source_tokens"] = random.integers(1, decoder.vocab_size, shape, np.int32)
    batch = {name: shard_batch(array, mesh) for name, array in batch.items()}
    if teacher is not None:
        batch["teacher"] = {
            part: jax.tree.map(jnp.copy, params[part]) for part in teacher.shapes(mesh)
        }
    carried = [params, initialize_optimizer(optimizer, params, mesh)]

    def take() -> Any:
        *carried[:], metrics = step(*carried, jnp.int32(0), batch)
        return metrics

    return take


def measured(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """For the small model: the most that the operations allow, and what is reached."""
    with tempfile.TemporaryDirectory() as scratch:
        write_model_files(Path(scratch), SMALL)
        configs = {
            name: polish_config(
                *(Path(scratch), section, SMALL_LENGTH, round(options.longer * SMALL_LENGTH)),
                batch_size=SMALL_ROWS,
                dtype="float32",
            )
            for name, section in arms(SMALL["num_hidden_layers"]).items()
        }
        steps = {name: small_step(config) for name, config in configs.items()}
        counted = {name: operations(SMALL, config) for name, config in configs.items()}
    times = times_in_turns(options.repeats, steps)
    for name in configs:
        tokens = SMALL_ROWS * SMALL_LENGTH / median(times[name])
        most = f"{counted[FROZEN] / counted[name]:.0%}"
        yield name, f"{tokens:,.0f}", most, ratio(times[FROZEN], times[name])


def planned(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """For a published model: the operations, and the memory of a chip."""
    shape, before = MODELS[options.model], (0.0, 0)
    with tempfile.TemporaryDirectory() as scratch:
        write_model_files(Path(scratch), shape)
        for name, section in arms(shape["num_hidden_layers"]).items():
            config = polish_config(
                *(Path(scratch), section, options.length, round(options.longer * options.length)),
                batch_size=options.rows,
            )
            memory = plan_run(config, options.accelerator).memory_bytes
            counted = operations(shape, config)
            before = (counted, memory) if name == FROZEN else before
            most = f"{before[0] / counted:.0%}"
            yield name, f"{counted / 1e9:.2f}", most, f"{gib(memory)}", f"{memory / before[1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="smollm2-135m", help="to plan")
    parser.add_argument("--accelerator", default="v5litepod-1", help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=32, help="sequences; default: %(default)s")
    parser.add_argument("--length", type=int, default=512, help="default: %(default)s")
    parser.add_argument(
        "--longer", type=float, default=2.0, help="tokens of the source per new one; %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    print_machine("libtpu")
    print(f"{options.accelerator}, {options.rows} sequences of {options.length:,} tokens\n")
    headers = (
        "losses",
        "GFLOP/token",
        "tokens/s at most",
        "memory, GiB",
        "times that of the first",
    )
    print_table(headers, planned(options))
    print(f"\nA small model here, {SMALL_ROWS} sequences of {SMALL_LENGTH} tokens\n")
    print_table(("losses", "tokens/s", "at most", "reached"), measured(options))


if __name__ == "__main__":
    main()
