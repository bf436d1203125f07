"""Memory and time of importing and exporting a checkpoint.

    JAX_PLATFORMS=cpu python scripts/benchmarks/checkpoint.py --model llama-3.1-8b --layers 6

Writes the model with random weights to a temporary folder, loads it and writes it again, and prints
the peak of the process's own memory (without the pages of the mapped file, which the kernel may
drop at any time) next to the floor: the model, plus the largest tensor of the checkpoint. The peak
of the export is the model plus what writing takes beyond it.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness import gib, measure, print_machine, print_table
from models import MODELS

from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.checkpoint.tensors import LazyTensor, open_tensors, write_tensors
from clp_jax.models import read_decoder_config, weight_table


def write_random_model(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    decoder = read_decoder_config(config)
    rng = np.random.default_rng(0)

    def tensor(shape: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(
            shape, np.dtype(np.float32), lambda rows: rng.random(shape, np.float32)[rows]
        )

    tensors = {
        name: tensor(weight.checkpoint_shape(decoder.sizes))
        for weight in weight_table(decoder)
        for name in weight.names(decoder.num_layers)
    }
    write_tensors(folder, tensors)


def prepare_import(folder: Path) -> Callable[[], None]:
    jax.numpy.zeros(1).block_until_ready()

    def load() -> None:
        jax.block_until_ready(load_model(folder))

    return load


def prepare_export(folder: Path) -> Callable[[], None]:
    return partial(save_model, load_model(folder), folder / "out", origin=folder)


def rows_of(folder: Path) -> Iterator[tuple[str, ...]]:
    sizes = [tensor.nbytes for tensor in open_tensors(folder).values()]
    model, floor = sum(sizes), sum(sizes) + max(sizes)
    loading, saving = measure(prepare_import, folder), measure(prepare_export, folder)
    for name, held, found in (("import", 0, loading), ("export", model, saving)):
        peak = held + found.peak
        yield name, gib(peak), gib(floor), f"{peak / floor:.2f}", f"{found.seconds:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="bloom-560m")
    parser.add_argument("--layers", type=int, help="keep only so many")
    options = parser.parse_args()
    print_machine()
    config = dict(MODELS[options.model])
    if options.layers:
        depth = "n_layer" if "n_layer" in config else "num_hidden_layers"
        config[depth] = options.layers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_model(folder, config)
        headers = "", "peak beyond start, GiB", "model + largest tensor, GiB", "ratio", "seconds"
        print_table(headers, rows_of(folder))


if __name__ == "__main__":
    main()
