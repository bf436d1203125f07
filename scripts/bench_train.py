"""The training step of clp_jax against that of transformers in PyTorch, on the same device.

    python scripts/bench_train.py --models tiny gpt2 --length 512 --batch 4 --dtype float32
    python scripts/bench_train.py --models gpt2 gpt2-xl bloom-560m --length 1024 2048 \\
        --batch 8 16 32 64 --dtype bfloat16 --peer-python ~/torch/bin/python

Both start from the same random weights and read the same tokens: AdamW with weight decay of
matrices, gradients clipped to norm 1, no dropout, mean cross-entropy of all tokens. Their first
losses must agree, or there is no table. The sides run in turns in processes of their own. On a GPU
the peer uses SDPA, torch.compile, autocast and the fused AdamW; on a CPU it is eager, with either
of its attentions. Of several batch sizes the largest is taken that both sides have the memory for.
Flags with a dot go to the configuration of the run, such as `--train.remat dots`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clp_jax.checkpoint.hf import save_model
from clp_jax.data.corpus.store import write_corpus
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config

IDS = {"bos_token_id": 0, "eos_token_id": 0}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
GPT2 = {"model_type": "gpt2", **IDS, **NO_DROPOUT}
BLOOM = {"model_type": "bloom", **IDS, "vocab_size": 250880}
SHAPES: Mapping[str, dict[str, Any]] = {
    "tiny": {**GPT2, "vocab_size": 2048, "n_embd": 128, "n_layer": 4, "n_head": 4},
    "gpt2": {**GPT2, "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {**GPT2, "vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-xl": {**GPT2, "vocab_size": 50257, "n_embd": 1600, "n_layer": 48, "n_head": 25},
    "bloom-560m": {**BLOOM, "hidden_size": 1024, "n_layer": 24, "n_head": 16},
    "bloom-1b7": {**BLOOM, "hidden_size": 2048, "n_layer": 24, "n_head": 16},
}
PEERS: Mapping[str, tuple[str, ...]] = {"cpu": ("eager", "sdpa"), "cuda": ("sdpa",), "tpu": ()}
"""The attentions of transformers that are measured on a device."""
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
OURS = "clp_jax"
OURS_WORKER = Path(__file__).with_name("bench_train_ours.py")
PEER_WORKER = Path(__file__).with_name("bench_train_peer.py")
HEADERS = (
    *("model", "length", "batch", "side", "tokens/s", "ms/step", "MFU", "peak, GiB"),
    "times the time of clp_jax",
)
PROFILE_HEADERS = ("kernel or operation", "ms/step", "share")
LONGEST = 40
LOOP_HEADERS = ("model", "length", "batch", "step, ms", "outside it, µs", "share")

Measured = dict[str, Any]
Line = tuple[str, ...]


def write_inputs(folder: Path, name: str, length: int, rows: int) -> None:
    """The model with random weights, batches of random tokens, and a corpus for the loop."""
    shape = dict(SHAPES[name])
    if shape["model_type"] == "gpt2":
        shape["n_positions"] = max(length, 1024)
    decoder = read_decoder_config(shape)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, decoder.vocab_size, (rows, length + 1), np.int32)
    np.save(folder / "tokens.npy", tokens)

    new = folder / "new"
    new.mkdir()
    (new / "config.json").write_text(json.dumps(shape))
    words = {str(id): id for id in range(decoder.vocab_size)}
    core = Tokenizer(models.WordLevel(words, unk_token="0"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="0")
    tokenizer.save_pretrained(new)
    write_corpus((" ".join(map(str, row)) for row in tokens), tokenizer, folder / "corpus")

    model = initialize(decoder, seed=0, mesh=single_device_mesh())
    save_model(model, folder / "model", origin=new)


def run(python: str, worker: Path, folder: Path, device: str, *arguments: str) -> Measured:
    """What a worker prints as JSON on its last line."""
    print(f"{time.strftime('%X')} {worker.name} {' '.join(arguments)}", file=sys.stderr)
    process = subprocess.run(
        [python, str(worker), str(folder), *arguments],
        env=os.environ | {"JAX_PLATFORMS": device, "TRANSFORMERS_VERBOSITY": "error"},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        sys.exit(f"{process.stderr}\n{worker.name} {' '.join(arguments)} failed")
    return json.loads(process.stdout.splitlines()[-1])


def measure(folder: Path, name: str, batch: int, options: Any) -> dict[str, list[Measured]] | None:
    """Each side's measurements in turns, or None where one of them has not enough memory."""
    attentions = PEERS[options.device]
    if attentions and SHAPES[name]["model_type"] == "bloom":
        attentions = ("eager",)  # the only one that transformers has for it
    found: dict[str, list[Measured]] = {}
    for _ in range(options.repeats):
        turn = {OURS: ours("step", folder, batch, options)}
        for attention in attentions:
            turn[f"PyTorch, {attention} attention"] = run(
                options.peer_python,
                PEER_WORKER,
                folder,
                options.device,
                *common_flags(batch, options),
                *("--attention", attention),
            )
        for side, figures in turn.items():
            if figures.get("out_of_memory"):
                return None
            found.setdefault(side, []).append(figures)
    expected = found[OURS][0]["losses"]
    for side, turns in found.items():
        if not np.allclose(turns[0]["losses"], expected, rtol=LOSS_TOLERANCE[options.dtype]):
            sys.exit(f"{name}: the losses differ: {expected}, but {side} has {turns[0]['losses']}")
    return found


def ours(what: str, folder: Path, batch: int, options: Any) -> Measured:
    """Measure the step of clp_jax, or its loop."""
    flags = (what, *common_flags(batch, options), *options.overrides)
    return run(sys.executable, OURS_WORKER, folder, options.device, *flags)


def common_flags(batch: int, options: Any) -> tuple[str, ...]:
    """What both sides are told."""
    return ("--batch", str(batch), "--steps", str(options.steps), "--dtype", options.dtype)


def lines_of(name: str, length: int, batch: int, found: dict[str, list[Measured]]) -> list[Line]:
    """Lines of the table: medians, and of the ratios that of each turn's."""
    first = found[OURS][0]
    lines = []
    for side, turns in found.items():
        seconds = statistics.median(turn["seconds"] for turn in turns)
        peak = statistics.median(turn["peak_bytes"] for turn in turns)
        pairs = zip(turns, found[OURS], strict=True)
        ratio = statistics.median(turn["seconds"] / ours["seconds"] for turn, ours in pairs)
        lines.append(
            (
                *(name, f"{length:,}", f"{batch}", side),
                f"{batch * length / seconds:,.0f}",
                f"{seconds * 1e3:,.1f}",
                f"{first['flops'] / seconds / first['peak_flops']:.0%}",
                f"{peak / 2**30:.2f}",
                f"{ratio:.2f}",
            )
        )
    return lines


def outside(folder: Path, name: str, length: int, batch: int, options: Any) -> Line:
    """Line of the second table: what the loop adds to the compiled step."""
    found = ours("loop", folder, batch, options)
    added = found["whole"] - found["alone"]
    return (
        *(name, f"{length:,}", f"{batch}", f"{found['alone'] * 1e3:,.1f}"),
        f"{added * 1e6:,.0f}",
        f"{added / found['alone']:.2%}",
    )


def profile_lines(folder: Path, batch: int, options: Any) -> list[Line]:
    """Lines of the third table: what the device is busy with the longest, in a step."""
    busy = ours("profile", folder, batch, options)["busy"]
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
    parser.add_argument("--models", choices=SHAPES, nargs="+", default=["tiny"])
    parser.add_argument("--length", type=int, nargs="+", default=[1024])
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--dtype", choices=LOSS_TOLERANCE, default="float32")
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--peer-python", default=sys.executable, help="has torch and transformers")
    parser.add_argument("--loop", action="store_true", help="also time the loop around the step")
    parser.add_argument("--profile", action="store_true", help="also list the longest kernels")
    options, options.overrides = parser.parse_known_args()
    jax.config.update("jax_platforms", "cpu")  # the accelerator is left to the workers

    lines, loops, kernels, figures = [], [], [], {}
    for name in options.models:
        for length in options.length:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                write_inputs(folder, name, length, max(options.batch))
                for batch in sorted(options.batch, reverse=True):
                    found = measure(folder, name, batch, options)
                    if found:
                        break
                else:
                    sys.exit(f"{name} does not fit with any of these batch sizes")
                lines += lines_of(name, length, batch, found)
                figures = {side: turns[0] for side, turns in found.items()}
                if options.loop:
                    loops.append(outside(folder, name, length, batch, options))
                if options.profile:
                    kernels += profile_lines(folder, batch, options)
    versions = ", ".join(dict.fromkeys(turn["version"] for turn in figures.values()))
    print(f"{date.today()}, {figures[OURS]['device']}, {options.dtype}; {versions}\n")
    print(markdown_table(HEADERS, lines))
    for headers, rows in ((LOOP_HEADERS, loops), (PROFILE_HEADERS, kernels)):
        if rows:
            print()
            print(markdown_table(headers, rows))


if __name__ == "__main__":
    main()
