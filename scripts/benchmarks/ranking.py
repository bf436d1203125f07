"""Time of `auto`'s ranking with text, as a whole and by its parts, for a made-up pair.

    JAX_PLATFORMS=cpu python scripts/benchmarks/ranking.py

The source has the shape of SmolLM2-135M and random weights, the helper is one table of 50,000 rows.
Each has a tokenizer of its own, trained on made-up words of which they share some. Each part is
measured in a process that has compiled nothing before. --folder keeps the pair.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from harness import gib, in_a_process, measure, print_machine, print_table
from models import MODELS

from clp_jax.checkpoint.hf import save_model
from clp_jax.checkpoint.hub import copy_tokenizer
from clp_jax.checkpoint.tensors import LazyTensor, write_tensors
from clp_jax.files import write_json
from clp_jax.mesh import make_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.transfer.calibration import SCORED_WINDOWS
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.helper import open_helper
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.models import open_source
from clp_jax.transfer.pair import TransferPair
from clp_jax.transfer.reading import read_with_source
from clp_jax.transfer.selection import SCREENED, rank_by_text, rows_of
from clp_jax.vocabulary.train import train_tokenizer


class Size(NamedTuple):
    """The source, rows and width of the helper's table, and how many words each text has."""

    source: str
    helper_rows: int
    helper_dim: int
    words: int


SIZES = {
    "smollm2-135m": Size("smollm2-135m", 50_000, 640, 600_000),
    "tiny": Size("tiny-llama", 2_000, 32, 20_000),
}
COMPILED = "/jax/core/compile/backend_compile_duration"


def made_up_documents(rng: np.random.Generator, words: np.ndarray, count: int) -> list[str]:
    """Documents of words, the first of which are far more frequent than the last."""
    shares = 1 / (10 + np.arange(len(words)))
    drawn = rng.choice(words, count, p=shares / shares.sum())
    return [" ".join(part) for part in np.array_split(drawn, -(-count // 300))]


def write_pair(size: Size, folder: Path) -> None:
    """Write source, helper and text, unless they are there already."""
    if (folder / "helper" / "model.safetensors").exists():
        return
    rng = np.random.default_rng(0)
    syllables = [a + b for a in "bdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "el")]
    drawn = {"".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(size.words // 6)}
    words = rng.permutation(sorted(drawn))
    config = MODELS[size.source]
    rows = {"source": config["vocab_size"], "helper": size.helper_rows}
    for name, own in zip(rows, np.array_split(words, 2), strict=True):
        vocabulary = rng.permutation(np.concatenate([own, words[::8]]))
        documents = made_up_documents(rng, vocabulary, size.words)
        lines = (json.dumps({"text": document}) + "\n" for document in documents)
        (folder / f"{name}.jsonl").write_text("".join(lines))
        train_tokenizer([str(folder / f"{name}.jsonl")], rows[name], folder / f"{name}-tokenizer")
    write_json(folder / "source-tokenizer" / "config.json", config)
    model = initialize(read_decoder_config(config), seed=0, mesh=make_mesh())
    save_model(model, folder / "source", origin=folder / "source-tokenizer")
    (folder / "helper").mkdir()
    copy_tokenizer(folder / "helper-tokenizer", folder / "helper")
    table = rng.standard_normal((size.helper_rows, size.helper_dim), np.float32) + 0.5
    write_tensors(folder / "helper", {"embed_tokens.weight": LazyTensor.of(table)})


def open_pair(folder: Path) -> TransferPair:
    """The pair as a transfer opens it."""
    lines = (folder / "helper.jsonl").read_text().splitlines()[:400]
    text = [json.loads(line)["text"] for line in lines]
    models = open_source(folder / "source"), open_helper(folder / "helper")
    config = TransferConfig(data=("text",))
    return TransferPair(*models, config, text, folder / "scratch", make_mesh())


def rows_alone(name: str, pair: TransferPair) -> None:
    """A method's rows for the missing tokens, and the table."""
    pair.tables(pair.defaults(name))


def rows_of_shared(name: str, pair: TransferPair) -> None:
    """The method's rows for the shared tokens, each held out once."""
    for predictions in pair.predictions(pair.defaults(name)).values():
        _ = predictions.shared.rows


def loss(windows: int, pair: TransferPair) -> None:
    pair.evaluator.loss(rows_of(pair.tables(pair.defaults("mean"))), windows)


def calibration(pair: TransferPair) -> None:
    pair.evaluator.calibrate(rows_of(pair.tables(pair.defaults("mean"))))


def ranking(pair: TransferPair) -> None:
    """All of it, with the loss of the source as a transfer measures it before."""
    read_with_source(pair, measured=True)
    rank_by_text([pair])


RANKED = [name for name, entry in METHODS.items() if entry.ranked]
PARTS: dict[str, Callable[[TransferPair], None]] = {
    "ranking": ranking,
    "loss": partial(loss, SCREENED),
    "loss of a finalist": partial(loss, SCORED_WINDOWS),
    "calibration": calibration,
    **{name: partial(rows_alone, name) for name in RANKED if name not in ("wechsel", "focus")},
    "ridge, shared": partial(rows_of_shared, "ridge"),
    "clp-topk, shared": partial(rows_of_shared, "clp-topk"),
}


def prepare(name: str, folder: Path) -> Callable[[], tuple[int, float]]:
    """A part of the ranking, which returns how many programs it compiled, and the seconds of it."""
    pair, compiled = open_pair(folder), list[float]()
    _ = pair.sample
    for inputs in pair.inputs.values():
        _ = inputs.source, inputs.helper

    def note(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            compiled.append(duration)

    def call() -> tuple[int, float]:
        jax.monitoring.register_event_duration_secs_listener(note)
        PARTS[name](pair)
        return len(compiled), sum(compiled)

    return call


def measured(folder: Path, names: list[str]) -> Iterator[tuple[str, ...]]:
    for name in names:
        found = measure(prepare, name, folder)
        programs, seconds = found.result
        times = (f"{value:.1f}" for value in (found.seconds, found.cpu_seconds, seconds))
        yield name, *times, f"{programs}", gib(found.peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="smollm2-135m")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    parser.add_argument("--folder", type=Path, help="where the pair is, or is written")
    options = parser.parse_args()
    size = SIZES[options.size]
    print_machine("numpy")
    print(f"{options.size} and a helper of {size.helper_rows:,} x {size.helper_dim}.\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        in_a_process(write_pair, size, folder)
        headers = "part", "seconds", "CPU seconds", "of it compiling", "programs"
        print_table((*headers, "GiB beyond the inputs"), measured(folder, options.only))


if __name__ == "__main__":
    main()
