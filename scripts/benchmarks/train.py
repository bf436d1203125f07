"""The training step of clp_jax against that of transformers in PyTorch, on the same device.

    python scripts/benchmarks/train.py --models tiny gpt2 --length 512 --batch 4 --dtype float32
    python scripts/benchmarks/train.py --models gpt2 gpt2-xl bloom-560m --length 1024 2048 \\
        --batch 8 16 32 64 --dtype bfloat16 --peer-python ~/torch/bin/python

Both start from the same random weights and read the same tokens: AdamW with weight decay of
matrices, gradients clipped to norm 1, no dropout, mean cross-entropy of all tokens. Their first
losses must agree, or there is no table. The sides run in turns in processes of their own. On a GPU
the peer uses SDPA, torch.compile, autocast and the fused AdamW; on a CPU it is eager, with either
of its attentions. Of several batch sizes the largest is taken that both sides have the memory for.
Flags with a dot go to the configuration of the run, such as `--train.remat dots`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from harness import gib, in_a_process, in_turns, measure_script, print_machine, print_table, ratio
from models import MODELS, write_model_files
from train_ours import loop, profile, step

from clp_jax.checkpoint.hf import save_model
from clp_jax.config import RunConfig
from clp_jax.data.corpus.store import write_corpus
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config

PEERS: Mapping[str, tuple[str, ...]] = {"cpu": ("eager", "sdpa"), "cuda": ("sdpa",), "tpu": ()}
"""The attentions of transformers that are measured on a device."""
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
OURS = "clp_jax"
HEADERS = (
    *("model", "length", "batch", "side", "tokens/s", "ms/step", "MFU", "peak, GiB"),
    "times the time of clp_jax",
)
LOOP_HEADERS = ("model", "length", "batch", "step, ms", "outside it, µs", "share")
PROFILE_HEADERS = ("kernel or operation", "ms/step", "share")
LONGEST = 40

Figures = dict[str, Any]
Row = tuple[str, ...]


class OutOfMemory(Exception):
    """A side has not enough memory for a batch."""


def write_inputs(folder: Path, name: str, length: int, rows: int) -> None:
    """The model with random weights, batches of random tokens, and a corpus for the loop."""
    shape = dict(MODELS[name])
    if "n_positions" in shape:
        shape["n_positions"] = max(length, shape["n_positions"])
    decoder = read_decoder_config(shape)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, decoder.vocab_size, (rows, length + 1), np.int32)
    np.save(folder / "tokens.npy", tokens)

    new = folder / "new"
    new.mkdir()
    tokenizer = write_model_files(new, shape)
    write_corpus((" ".join(map(str, row)) for row in tokens), tokenizer, folder / "corpus")

    model = initialize(decoder, seed=0, mesh=single_device_mesh())
    save_model(model, folder / "model", origin=new)


def ours(measured: Callable[..., Figures], folder: Path, batch: int, options: Any) -> Figures:
    """Measure the step of clp_jax, its loop or its kernels."""
    settings = {
        "model.path": folder / "model",
        "model.init": "random",
        "data.train": folder / "corpus",
        "data.sequence_length": np.load(folder / "tokens.npy", mmap_mode="r").shape[1] - 1,
        "optimizer.schedule": "constant",
        "train.out": "none",
        "train.steps": 3 * options.steps,
        "train.log_every": options.steps,
        "train.batch_size": batch,
        "train.dtype": options.dtype,
    }
    flags = [f"--{key}={value}" for key, value in settings.items()]
    config = RunConfig.from_yaml(None, [*flags, *options.overrides])
    found = in_a_process(measured, config, folder, options.steps)
    if found.result is None:
        raise OutOfMemory
    return {"peak": found.peak} | found.result


def peer(attention: str, folder: Path, batch: int, options: Any) -> Figures:
    """Measure the step of transformers with one of its attentions."""
    figures, peak = measure_script(
        *(options.peer_python, "train_peer.py", folder, "--attention", attention),
        *("--batch", batch, "--steps", options.steps, "--dtype", options.dtype),
    )
    if figures.get("out_of_memory"):
        raise OutOfMemory
    return {"peak": peak} | figures


def measure(folder: Path, name: str, batch: int, options: Any) -> dict[str, list[Figures]]:
    """Each side's figures in turns, checked to have the same losses."""
    attentions = PEERS[options.device]
    if attentions and name.startswith("bloom"):
        attentions = ("eager",)  # the only one that transformers has for it
    ways = {OURS: partial(ours, step, folder, batch, options)}
    for attention in attentions:
        ways[f"PyTorch, {attention} attention"] = partial(peer, attention, folder, batch, options)
    found = in_turns(options.repeats, ways)
    expected = found[OURS][0]["losses"]
    for side, (first, *_) in found.items():
        if not np.allclose(first["losses"], expected, rtol=LOSS_TOLERANCE[options.dtype]):
            sys.exit(f"{name}: the losses differ: {expected}, but {side} has {first['losses']}")
    return found


def largest(folder: Path, name: str, options: Any) -> tuple[int, dict[str, list[Figures]]]:
    """The largest batch that both sides have the memory for, and the figures with it."""
    for batch in sorted(options.batch, reverse=True):
        try:
            return batch, measure(folder, name, batch, options)
        except OutOfMemory:
            continue
    sys.exit(f"{name} does not fit with any of these batch sizes")


def rows_of(
    options: Any, loops: list[Row], kernels: list[Row], versions: set[str]
) -> Iterator[Row]:
    """Rows of the first table; those of the other two, and the peer's versions, go to the lists."""
    for name, length in product(options.models, options.length):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_inputs(folder, name, length, max(options.batch))
            batch, found = largest(folder, name, options)
            first = found[OURS][0]
            times = {side: [turn["seconds"] for turn in turns] for side, turns in found.items()}
            for side, turns in found.items():
                versions |= {turn["version"] for turn in turns if "version" in turn}
                seconds = median(times[side])
                yield (
                    *(name, f"{length:,}", f"{batch}", side),
                    f"{batch * length / seconds:,.0f}",
                    f"{seconds * 1e3:,.1f}",
                    f"{first['flops'] / seconds / first['peak_flops']:.0%}",
                    gib(median(turn["peak"] for turn in turns)),
                    ratio(times[side], times[OURS]),
                )
            if options.loop:
                loops.append((name, f"{length:,}", f"{batch}", *loop_cells(folder, batch, options)))
            if options.profile:
                kernels += profile_rows(folder, batch, options)


def loop_cells(folder: Path, batch: int, options: Any) -> Row:
    """What the loop adds to the compiled step."""
    found = ours(loop, folder, batch, options)
    alone, added = found["alone"], found["whole"] - found["alone"]
    return f"{alone * 1e3:,.1f}", f"{added * 1e6:,.0f}", f"{added / alone:.2%}"


def profile_rows(folder: Path, batch: int, options: Any) -> list[Row]:
    """What the device is busy with the longest, in a step."""
    busy = ours(profile, folder, batch, options)["busy"]
    whole = sum(busy.values())
    return [
        (name, f"{seconds * 1e3:,.2f}", f"{seconds / whole:.1%}")
        for name, seconds in [*busy.items()][:LONGEST]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=PEERS, default="cpu")
    parser.add_argument("--models", choices=MODELS, nargs="+", default=["tiny"])
    parser.add_argument("--length", type=int, nargs="+", default=[1024])
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--dtype", choices=LOSS_TOLERANCE, default="float32")
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--peer-python", default=sys.executable, help="has torch and transformers")
    parser.add_argument("--loop", action="store_true", help="also time the loop around the step")
    parser.add_argument("--profile", action="store_true", help="also list the longest kernels")
    options, options.overrides = parser.parse_known_args()
    jax.config.update("jax_platforms", "cpu")  # the accelerator is left to the other processes
    os.environ["JAX_PLATFORMS"] = options.device

    print_machine()
    loops: list[Row] = []
    kernels: list[Row] = []
    versions: set[str] = set()
    print_table(HEADERS, rows_of(options, loops, kernels, versions))
    print(f"\n{', '.join([options.dtype, *sorted(versions)])}")
    for headers, rows in ((LOOP_HEADERS, loops), (PROFILE_HEADERS, kernels)):
        if rows:
            print()
            print_table(headers, rows)


if __name__ == "__main__":
    main()
