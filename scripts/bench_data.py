"""Speed and memory of `clp-jax prepare`, and of the batches that training reads.

    python scripts/bench_data.py --text 'german/*.jsonl.zst' --tokenizer gpt2

prints a Markdown table for each part:

* tokenise: text to a corpus, beside what the usual script for language models does with
  `datasets.map`, on the same cores, at two sizes and in turns;
* read: training batches of a corpus, beside what GPT-2 small needs;
* clean: each rule and each deduplication of a recipe, on one core;
* scale: the whole recipe, on one core and on more.

Every measurement runs in a process of its own. The text is repeated where there is too little.
"""

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from datetime import date
from importlib.metadata import version
from itertools import chain, cycle, product
from json import dumps
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from clp_jax.data.config import CleanSection, DeduplicateSection, ExecutionSection, PrepareConfig
from clp_jax.evaluate.tables import markdown_table

MB = 1_000_000
CORES = len(os.sched_getaffinity(0))
FILES = 16
"""The text is divided into so many files, so that there is work for every core."""
TASKS = 4
"""Of a deduplication."""
ROWS, LENGTH = 64, 1024
"""Of a batch."""
BATCHES = 200

# GPT-2 small, and what a token costs by appendix B of the PaLM paper: 6 N + 12 L d T.
LAYERS, WIDTH, VOCABULARY = 12, 768, 50257
FLOPS = 6 * (12 * LAYERS * WIDTH**2 + VOCABULARY * WIDTH) + 12 * LAYERS * WIDTH * LENGTH
UTILISATION = 0.4
PEAK_FLOPS = {"one H200": 989e12, "eight v5e": 8 * 197e12}
"""Operations a second in bfloat16, as the makers state them."""


class Measured(NamedTuple):
    """Seconds, those of all cores together, bytes of memory at the peak, and what was returned."""

    seconds: float
    core_seconds: float
    peak: int
    result: Any


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Call a function in a new process and watch that and its children."""
    print(function.__name__, file=sys.stderr)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pid, peak = pool.submit(os.getpid).result(), 0
        running = pool.submit(timed, function, *arguments)
        while not running.done():
            peak = max(peak, own_memory(pid))
            time.sleep(0.05)
        seconds, core_seconds, result = running.result()
        return Measured(seconds, core_seconds, peak, result)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    clock, cores = time.perf_counter(), core_seconds()
    result = function(*arguments)
    return time.perf_counter() - clock, core_seconds() - cores, result


def core_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def own_memory(pid: int) -> int:
    """Resident bytes of a process and all below it, but for those of files that are mapped.

    Pages that a fork shares with its parent are counted in both.
    """
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                total += memory.rss - memory.shared
    return total


def texts(inputs: Sequence[str], size: int) -> Iterator[str]:
    """Documents with so many bytes together, from the beginning again where there are too few."""
    from clp_jax.data.io.readers import read_documents

    left = size
    while True:
        for text in read_documents(inputs):
            left -= len(text.encode())
            if left < 0:
                return
            yield text


def write_text(inputs: Sequence[str], size: int, folder: Path) -> list[str]:
    """Write so many bytes of text as the lines of some files."""
    folder.mkdir()
    names = [folder / f"{number:02}.jsonl" for number in range(FILES)]
    with ExitStack() as stack:
        files = [stack.enter_context(name.open("w", encoding="utf-8")) for name in names]
        for file, text in zip(cycle(files), texts(inputs, size), strict=False):
            file.write(dumps({"text": text}, ensure_ascii=False) + "\n")
    return [str(name) for name in names]


def prepare(files: list[str], tokenizer: str, out: Path, config: PrepareConfig) -> int:
    """Our way from text to a corpus, on as many cores as workers; returns its tokens."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.execution.workers])
    from clp_jax import prepare_corpus

    manifest = prepare_corpus(files, tokenizer, out, config=config)
    return manifest["tokens"]


def map_and_group(files: list[str], tokenizer: str, cache: Path) -> int:
    """The usual way, to blocks of `LENGTH` tokens in Arrow files; returns the tokens."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    loaded = AutoTokenizer.from_pretrained(tokenizer)

    def tokenize(batch: dict[str, list[str]]) -> dict[str, Any]:
        return dict(loaded(batch["text"], verbose=False))

    def group_texts(batch: dict[str, list[list[int]]]) -> dict[str, Any]:
        rows = {key: list(chain(*lists)) for key, lists in batch.items()}
        end = len(rows["input_ids"]) // LENGTH * LENGTH
        blocks = {
            key: [row[i : i + LENGTH] for i in range(0, end, LENGTH)] for key, row in rows.items()
        }
        return blocks | {"labels": blocks["input_ids"].copy()}

    text = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(cache))
    common = {"batched": True, "num_proc": CORES}
    tokens = text.map(tokenize, remove_columns=text.column_names, **common)
    return tokens.map(group_texts, **common).num_rows * LENGTH


def tokenise(options: argparse.Namespace, scratch: Path) -> str:
    ways = {"clp-jax prepare": prepare_plainly, "datasets.map and group_texts": map_and_group}
    rows = []
    for megabytes in options.tokenise_mb:
        files = write_text(options.text, megabytes * MB, scratch / f"tokenise-{megabytes}")
        turns: dict[str, list[Measured]] = {name: [] for name in ways}
        for turn, (name, way) in product(range(options.turns), ways.items()):
            out = scratch / f"{way.__name__}-{megabytes}-{turn}"
            turns[name].append(in_a_process(way, files, options.tokenizer, out))
            shutil.rmtree(out)
        usual = turns["datasets.map and group_texts"]
        for name, found in turns.items():
            pairs = [*zip(usual, found, strict=True)]
            rows.append(
                (
                    name,
                    f"{megabytes:,}",
                    f"{median(ours.seconds for ours in found):.1f}",
                    f"{median(ours.core_seconds for ours in found):.1f}",
                    ratios(theirs.seconds / ours.seconds for theirs, ours in pairs),
                    ratios(theirs.core_seconds / ours.core_seconds for theirs, ours in pairs),
                    f"{found[0].result:,}",
                    f"{max(ours.peak for ours in found) / 2**30:.2f}",
                )
            )
    headers = (
        *("what", "MB", "seconds", "core seconds"),
        *("times the usual script", "by core seconds", "tokens", "peak GiB"),
    )
    return markdown_table(headers, rows)


def prepare_plainly(files: list[str], tokenizer: str, out: Path) -> int:
    return prepare(files, tokenizer, out, on_cores(PrepareConfig(), CORES))


def ratios(found: Iterable[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in found)


def read_batches(corpus: Path) -> float:
    """Tokens a second of batches, after the first few."""
    from clp_jax.data.corpus.batches import TrainingBatches
    from clp_jax.data.corpus.store import Corpus

    batches = TrainingBatches(
        [Corpus.open(corpus)], sequence_length=LENGTH, batch_size=ROWS, seed=0
    ).starting_at()
    for _ in range(BATCHES // 10):
        next(batches)
    seconds, *_ = timed(lambda: [next(batches) for _ in range(BATCHES)])
    return BATCHES * ROWS * LENGTH / seconds


def read(options: argparse.Namespace, scratch: Path) -> str:
    files = write_text(options.text, options.read_mb * MB, scratch / "read")
    corpus = scratch / "read" / "corpus"
    config = on_cores(PrepareConfig(), CORES)
    in_a_process(prepare, files, options.tokenizer, corpus, config)
    rate = in_a_process(read_batches, corpus).result
    rows = [("batches, of pages in memory", f"{rate:,.0f}", "-")]
    for device, peak in PEAK_FLOPS.items():
        needed = UTILISATION * peak / FLOPS
        name = f"GPT-2 small on {device}, computed: {UTILISATION:.0%} of {peak / 1e12:,.0f} TFLOP/s"
        rows.append((name, f"{needed:,.0f}", f"{rate / needed:.0f}"))
    return markdown_table(("what", "tokens/s", "times as fast as needed"), rows)


def time_rules(inputs: Sequence[str], size: int, section: CleanSection, folder: Path) -> dict:
    """Core seconds of each cleaning rule on the same documents; each gets all of them."""
    from datatrove.data import Document

    from clp_jax.data.filters import clean_steps

    found = list(texts(inputs, size))
    seconds = {}
    for step in clean_steps(section, folder):
        documents = [Document(text, str(number)) for number, text in enumerate(found)]
        for _ in step.run(iter([Document(found[0], "first")])):
            pass  # what a rule loads, it loads now
        seconds[step.name] = timed(lambda: [*step.run(iter(documents))])[1]  # noqa: B023
    return seconds


def time_deduplications(
    inputs: Sequence[str], size: int, section: DeduplicateSection, folder: Path
) -> dict[str, float]:
    """Core seconds of each deduplication on the same documents, all its stages together."""
    from datatrove.data import Document

    from clp_jax.data.dedup import deduplications
    from clp_jax.data.execution import run_stages
    from clp_jax.data.stages import ReadDocuments, Stage, Workspace, WriteDocuments

    documents = [Document(text, str(n)) for n, text in enumerate(texts(inputs, size))]
    for rank in range(TASKS):
        for _ in WriteDocuments(folder / "documents").run(iter(documents[rank::TASKS]), rank):
            pass
    seconds = {}
    for name, find in deduplications(section).items():
        found = find(Workspace(folder / "documents", TASKS, folder / name, folder / "samples"))
        steps = [ReadDocuments(folder / "documents"), found.filter]
        stages = [*found.stages, Stage("filter", steps, TASKS)]
        _, seconds[name], _ = timed(run_stages, stages, folder / "work" / name, one_core())
    return seconds


def clean(options: argparse.Namespace, scratch: Path) -> str:
    config, size = recipe(options), options.clean_mb * MB
    seconds = {
        **in_a_process(time_rules, options.text, size, config.clean, scratch / "rules").result,
        **in_a_process(
            time_deduplications, options.text, size, config.deduplicate, scratch / "deduplicate"
        ).result,
    }
    rows = [(name, f"{options.clean_mb / taken:.2f}") for name, taken in seconds.items()]
    return markdown_table(("step", "MB/s of a core"), rows)


def scale(options: argparse.Namespace, scratch: Path) -> str:
    files = write_text(options.text, options.scale_mb * MB, scratch / "scale")
    rows, alone = [], 0.0
    for cores in sorted({*(2**n for n in range(CORES.bit_length())), CORES}):
        measured = in_a_process(
            prepare,
            files,
            options.tokenizer,
            scratch / "scale" / f"corpus-{cores}",
            on_cores(recipe(options), cores),
        )
        alone = alone or measured.seconds
        rows.append(
            (
                str(cores),
                f"{measured.seconds:.1f}",
                f"{options.scale_mb / measured.seconds:.2f}",
                f"{alone / measured.seconds:.2f}",
                f"{measured.peak / 2**30:.2f}",
            )
        )
    headers = "cores", "seconds", "MB/s", "times one core", "peak GiB"
    return markdown_table(headers, rows)


def recipe(options: argparse.Namespace) -> PrepareConfig:
    """The rules and deduplications of the recipe alone: no source, no test, nothing held out."""
    given = PrepareConfig.from_yaml(options.config)
    return PrepareConfig(clean=given.clean, deduplicate=given.deduplicate)


def one_core() -> ExecutionSection:
    return ExecutionSection(workers=1)


def on_cores(config: PrepareConfig, cores: int) -> PrepareConfig:
    return config.model_copy(update={"execution": ExecutionSection(workers=cores)})


PARTS = {"tokenise": tokenise, "read": read, "clean": clean, "scale": scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, nargs="+", metavar="GLOB")
    parser.add_argument("--tokenizer", required=True, metavar="MODEL")
    parser.add_argument("--config", default="configs/corpus-german.yaml", help="the recipe")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tokenise-mb", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--turns", type=int, default=3, help="of both ways to tokenise")
    parser.add_argument("--read-mb", type=int, default=64)
    parser.add_argument("--clean-mb", type=int, default=4)
    parser.add_argument("--scale-mb", type=int, default=64)
    parser.add_argument(
        "--scratch", default=tempfile.gettempdir(), help="folder for text and corpora"
    )
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    packages = ("clp-jax", "datatrove", "datasets", "tokenizers", "tiktoken", "grain")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{date.today()}, {CORES} cores of {platform.machine()}, {versions}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for part in options.only:
            print(f"\n{part}:\n\n{PARTS[part](options, Path(scratch))}", flush=True)


if __name__ == "__main__":
    main()
