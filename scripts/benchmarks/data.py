"""Speed and memory of `clp-jax prepare`, and of the batches that training reads.

    python scripts/benchmarks/data.py --text 'german/*.jsonl.zst' --tokenizer gpt2

prints a Markdown table for each part:

* tokenise: text to a corpus, next to what the usual script for language models does with
  `datasets.map`, on the same cores, at two sizes and in turns;
* read: training batches of a corpus, next to what GPT-2 small needs;
* clean: each rule and each deduplication of a recipe, on one core;
* scale: the whole recipe, on one core and on more.

Every measurement runs in a process of its own. The text is repeated where there is too little.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, cycle
from json import dumps
from pathlib import Path
from statistics import median
from typing import Any

from harness import (
    CORES,
    Measured,
    cpu_seconds,
    gib,
    in_a_process,
    in_turns,
    print_machine,
    print_table,
    ratio,
    seconds,
)

from clp_jax.data.config import CleanSection, DeduplicateSection, ExecutionSection, PrepareConfig

MB = 1_000_000
FILES = 16
"""The text is divided into this many files, so that there is work for every core."""
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
"""Operations per second in bfloat16, as the makers state them."""


def texts(inputs: Sequence[str], size: int) -> Iterator[str]:
    """Documents with this many bytes together, from the beginning again where there are too few."""
    from clp_jax.data.io.readers import read_documents

    left = size
    while True:
        for text in read_documents(inputs):
            left -= len(text.encode())
            if left < 0:
                return
            yield text


def write_text(inputs: Sequence[str], size: int, folder: Path) -> list[str]:
    """Write this many bytes of text as the lines of some files."""
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


def prepare_plainly(files: list[str], tokenizer: str, out: Path) -> int:
    return prepare(files, tokenizer, out, on_cores(PrepareConfig(), CORES))


def tokenise(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, ...]]:
    usual = "datasets.map and group_texts"
    ways = {"clp-jax prepare": prepare_plainly, usual: map_and_group}
    for megabytes in options.tokenise_mb:
        files = write_text(options.text, megabytes * MB, scratch / f"tokenise-{megabytes}")

        def measured(way: Callable[..., int]) -> Measured:
            out = scratch / "tokenised"
            found = in_a_process(way, files, options.tokenizer, out)  # noqa: B023
            shutil.rmtree(out)
            return found

        turned = {name: partial(measured, way) for name, way in ways.items()}
        found = in_turns(options.turns, turned)
        wall = {name: [turn.seconds for turn in turns] for name, turns in found.items()}
        cpu = {name: [turn.cpu_seconds for turn in turns] for name, turns in found.items()}
        for name, turns in found.items():
            yield (
                name,
                f"{megabytes:,}",
                f"{median(wall[name]):.1f}",
                f"{median(cpu[name]):.1f}",
                ratio(wall[usual], wall[name]),
                ratio(cpu[usual], cpu[name]),
                f"{turns[0].result:,}",
                gib(max(turn.peak for turn in turns)),
            )


def read_batches(corpus: Path) -> float:
    """Tokens per second of batches, after the first few."""
    from clp_jax.data.corpus.batches import TrainingBatches
    from clp_jax.data.corpus.store import Corpus

    batches = TrainingBatches(
        [Corpus.open(corpus)], sequence_length=LENGTH, batch_size=ROWS, seed=0
    ).starting_at()
    for _ in range(BATCHES // 10):
        next(batches)
    return BATCHES * ROWS * LENGTH / seconds(lambda: [next(batches) for _ in range(BATCHES)])


def read(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, ...]]:
    files = write_text(options.text, options.read_mb * MB, scratch / "read")
    corpus = scratch / "read" / "corpus"
    config = on_cores(PrepareConfig(), CORES)
    in_a_process(prepare, files, options.tokenizer, corpus, config)
    rate = in_a_process(read_batches, corpus).result
    yield "batches, of pages in memory", f"{rate:,.0f}", "-"
    for device, peak in PEAK_FLOPS.items():
        needed = UTILISATION * peak / FLOPS
        name = f"GPT-2 small on {device}, computed: {UTILISATION:.0%} of {peak / 1e12:,.0f} TFLOP/s"
        yield name, f"{needed:,.0f}", f"{rate / needed:.0f}"


def time_rules(inputs: Sequence[str], size: int, section: CleanSection, folder: Path) -> dict:
    """CPU seconds of each cleaning rule on the same documents; each gets all of them."""
    from datatrove.data import Document

    from clp_jax.data.filters import clean_steps

    found = list(texts(inputs, size))
    seconds = {}
    for step in clean_steps(section, folder):
        documents = [Document(text, str(number)) for number, text in enumerate(found)]
        for _ in step.run(iter([Document(found[0], "first")])):
            pass  # what a rule loads, it loads now
        began = cpu_seconds()
        _ = [*step.run(iter(documents))]
        seconds[step.name] = cpu_seconds() - began
    return seconds


def time_deduplications(
    inputs: Sequence[str], size: int, section: DeduplicateSection, folder: Path
) -> dict[str, float]:
    """CPU seconds of each deduplication on the same documents, all its stages together."""
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
        began = cpu_seconds()
        run_stages(stages, folder / "work" / name, ExecutionSection(workers=1))
        seconds[name] = cpu_seconds() - began
    return seconds


def clean(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, ...]]:
    config = recipe(options)
    for function, section in (
        (time_rules, config.clean),
        (time_deduplications, config.deduplicate),
    ):
        arguments = options.text, options.clean_mb * MB, section, scratch / function.__name__
        for name, taken in in_a_process(function, *arguments).result.items():
            yield name, f"{options.clean_mb / taken:.2f}"


def scale(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, ...]]:
    files = write_text(options.text, options.scale_mb * MB, scratch / "scale")
    alone = 0.0
    for cores in sorted({*(2**n for n in range(CORES.bit_length())), CORES}):
        out, config = scratch / "scale" / f"corpus-{cores}", on_cores(recipe(options), cores)
        found = in_a_process(prepare, files, options.tokenizer, out, config)
        alone = alone or found.seconds
        yield (
            str(cores),
            f"{found.seconds:.1f}",
            f"{options.scale_mb / found.seconds:.2f}",
            f"{alone / found.seconds:.2f}",
            gib(found.peak),
        )


def recipe(options: argparse.Namespace) -> PrepareConfig:
    """The rules and deduplications of the recipe alone: no source, no test, nothing held out."""
    given = PrepareConfig.from_yaml(options.config)
    return PrepareConfig(clean=given.clean, deduplicate=given.deduplicate)


def on_cores(config: PrepareConfig, cores: int) -> PrepareConfig:
    return config.model_copy(update={"execution": ExecutionSection(workers=cores)})


PARTS = {
    "tokenise": (
        tokenise,
        (
            *("what", "MB", "seconds", "CPU seconds"),
            *("times the usual script", "by CPU seconds", "tokens", "peak GiB"),
        ),
    ),
    "read": (read, ("what", "tokens/s", "times as fast as needed")),
    "clean": (clean, ("step", "MB/s per core")),
    "scale": (scale, ("cores", "seconds", "MB/s", "times one core", "peak GiB")),
}
"""What is measured, and the columns of its table."""


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
    print_machine("clp-jax", "datatrove", "datasets", "tokenizers", "tiktoken", "grain")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for name in options.only:
            part, headers = PARTS[name]
            print(f"{name}:\n")
            print_table(headers, part(options, Path(scratch)))
            print()


if __name__ == "__main__":
    main()
