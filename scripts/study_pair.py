"""One pair of models, every way to start: bits per byte before and after a little training.

    python scripts/study_pair.py configs/study/smollm2-135m-german.yaml --out study

For each arm of the configuration: the transfer, then bits per byte of held-out text of each
language. For those that are trained, and each seed: continued pretraining on the same text in the
same order, at a constant learning rate, so that every point of a curve is a result of its own. The
source with its own tokenizer is an arm too, trained until it has read as many bytes. What is there
already is not made again. Writes text/, arms/, study.json, tables.md and curves.png.
"""

import argparse
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import Field

from clp_jax import RunConfig, evaluate_perplexity, prepare_corpus, train_model, transfer_model
from clp_jax.checkpoint.hub import read_config
from clp_jax.config import Configuration
from clp_jax.data.corpus.store import Corpus
from clp_jax.data.io.readers import read_documents
from clp_jax.evaluate.plots import COLOURS, tokens_to_reach
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import new_file, new_folder, read_json, write_json
from clp_jax.mesh import use_compilation_cache
from clp_jax.models import abstract_model, read_decoder_config
from clp_jax.quickstart.inputs import take, write_text

OWN = "own tokenizer"
"""The arm that is the source as it is."""
DOCUMENT = 700
"""Characters used of a held-out document."""

Point = dict[str, float]
"""Tokens, bytes of text and FLOPs of training so far, and bits per byte of the target language."""


class StudyConfig(Configuration):
    """A pair of models, the text, and what to compare."""

    source: str
    """Folder or hub id of the source model."""
    helper: str
    """Folder or hub id of the helper."""
    tokenizer: str | None = None
    """Folder of the new tokenizer; empty: the helper's own."""
    text: tuple[str, ...]
    """Text of the target language: to train on, and to choose by."""
    heldout: dict[str, str]
    """Text to measure on by the name of its language, the target language first."""
    heldout_characters: int = 40_000
    """Characters to measure on, of each language."""
    sample_characters: int = 200_000
    """Characters to choose by, from the end of the shuffled text."""
    train_characters: int = 4_000_000
    """Characters to train on, from its beginning."""
    arms: dict[str, dict[str, Any]]
    """Options of `clp-jax transfer` by the name of the arm, and of the run under ``train``."""
    trained: tuple[str, ...] = ()
    """Arms to train."""
    run: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Sections of a run, as for `clp-jax train`."""
    seeds: tuple[int, ...] = (0,)
    """Each decides the order of the text and the random rows."""


def write_texts(config: StudyConfig, out: Path) -> None:
    """Text to train on, text to choose by, and text to measure on, none of it twice."""
    if out.exists():
        return
    with new_folder(out) as folder:
        documents = list(read_documents(config.text))
        random.Random(0).shuffle(documents)
        train = take(documents, config.train_characters)
        sample = take(reversed(documents[len(train) :]), config.sample_characters)
        write_text(train, folder / "train.jsonl")
        write_text(sample, folder / "sample.jsonl")
        for language, files in config.heldout.items():
            documents = [document[:DOCUMENT] for document in read_documents([files])]
            random.Random(0).shuffle(documents)
            heldout = take(documents, config.heldout_characters)
            write_text(heldout, folder / f"{language}.jsonl")


class Study:
    """The folder of a study, and how its parts are made."""

    def __init__(self, config: StudyConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.texts = out / "text"
        write_texts(config, self.texts)

    def start(self, arm: str) -> Path:
        """The model that an arm begins with."""
        if arm == OWN:
            return Path(self.config.source)
        folder = self.out / "arms" / arm / "start"
        if not folder.exists():
            options = {k: v for k, v in self.config.arms[arm].items() if k != "train"}
            transfer_model(
                self.config.source,
                self.config.helper,
                folder,
                tokenizer=self.config.tokenizer,
                data=[str(self.texts / "sample.jsonl")],
                **options,
            )
        return folder

    def before(self, arm: str) -> dict[str, float]:
        """Bits per byte of each language before any training."""
        file = self.out / "arms" / arm / "before.json"
        if not file.exists():
            found = self._measure(self.start(arm))
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, found)
            if arm not in (OWN, *self.config.trained):
                shutil.rmtree(self.start(arm))
        return read_json(file)

    def _measure(self, model: Path) -> dict[str, float]:
        length = self.config.run.get("data", {}).get("sequence_length", 256)
        return {
            language: evaluate_perplexity(
                model,
                [str(self.texts / f"{language}.jsonl")],
                sequence_length=length,
                batch_size=4,
            ).bits_per_byte
            for language in self.config.heldout
        }

    def corpora(self, arm: str) -> tuple[Path, Path]:
        """The training and the held-out text as tokens of the arm's tokenizer."""
        whose = "own" if arm == OWN else "new"
        folders = []
        for text in ("train", next(iter(self.config.heldout))):
            folder = self.out / "corpora" / f"{text}-{whose}"
            if not folder.exists():
                prepare_corpus([str(self.texts / f"{text}.jsonl")], self.start(arm), folder)
            folders.append(folder)
        return folders[0], folders[1]

    def after(self, arm: str, seed: int) -> dict[str, Any]:
        """The curve of a training, and bits per byte of each language at its end."""
        file = self.out / "arms" / arm / f"after-{seed}.json"
        if not file.exists():
            run = self.out / "arms" / arm / f"run-{seed}"
            train, heldout = self.corpora(arm)
            settings = self._settings(arm, seed, run, train, heldout)
            summary = train_model(RunConfig.from_dict(settings), resume=run.exists())
            text, measured = Corpus.open(train), Corpus.open(heldout)
            model = abstract_model(read_decoder_config(read_config(self.start(arm))))
            flops = model.flops_per_token(settings["data"]["sequence_length"])
            start = {"tokens": 0.0, "bytes": 0.0, "flops": 0.0}
            curve = [start | {"bits_per_byte": self.before(arm)[next(iter(self.config.heldout))]}]
            for tokens, perplexity in summary.curve:
                curve.append(
                    {
                        "tokens": float(tokens),
                        "bytes": tokens * text.bytes / len(text),
                        "flops": float(tokens * flops),
                        "bits_per_byte": math.log2(perplexity) * len(measured) / measured.bytes,
                    }
                )
            write_json(file, {"curve": curve, "end": self._measure(run)})
            shutil.rmtree(run)
        return read_json(file)

    def _settings(
        self, arm: str, seed: int, run: Path, train: Path, heldout: Path
    ) -> dict[str, Any]:
        """The run of an arm; the source with its own tokenizer reads as many bytes as others."""
        sections = {
            "model": {"path": str(self.start(arm))},
            "data": {"train": str(train), "validation": str(heldout)},
            "optimizer": {"schedule": "constant"},
            "train": {"out": str(run), "seed": seed},
        }
        wished = self.config.arms.get(arm, {}).get("train", {})
        for name, section in sections.items():
            section |= self.config.run.get(name, {}) | wished.get(name, {})
        if arm == OWN:
            mine, theirs = Corpus.open(train), Corpus.open(self.corpora(self.config.trained[0])[0])
            longer = len(mine) / mine.bytes * theirs.bytes / len(theirs)
            steps = sections["train"]["steps"] * longer
            every = sections["train"]["validate_every"]
            sections["train"]["steps"] = round(steps / every) * every
        return sections


def table_before(found: Mapping[str, Mapping[str, float]]) -> str:
    """Bits per byte before training, the lowest of the target language first."""
    languages = list(next(iter(found.values())))
    rows = sorted(found.items(), key=lambda item: item[1][languages[0]])
    return markdown_table(
        ("rows", *languages),
        [(arm, *(f"{bits[language]:.3f}" for language in languages)) for arm, bits in rows],
    )


def interval(values: Sequence[float], form: str) -> str:
    """The mean, and the lowest and the highest where they are several."""
    low, high = min(values), max(values)
    spread = f" ({low:{form}} to {high:{form}})" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def table_after(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What training made of the arms: mean over the seeds, lowest and highest."""
    languages = list(next(iter(found.values()))[0]["end"])

    def reached(arm: str, other: str) -> str:
        """Bytes that the arm needs to reach what the other arm ends with, as its share of them."""
        shares = []
        for mine, theirs in zip(found[arm], found[other], strict=True):
            last = theirs["curve"][-1]
            curve = [(p["bytes"], 2 ** p["bits_per_byte"]) for p in mine["curve"]]
            needed = tokens_to_reach(curve, 2 ** last["bits_per_byte"])
            if needed is None:
                return "-"
            shares.append(needed / last["bytes"])
        return interval(shares, ".0%")

    last = {arm: mean(run["end"][languages[0]] for run in runs) for arm, runs in found.items()}
    ranked = sorted(last, key=last.__getitem__)
    best = ranked[0]
    rows = [
        (
            arm,
            *(interval([run["end"][name] for run in found[arm]], ".3f") for name in languages),
            f"{mean(run['curve'][-1]['tokens'] for run in found[arm]):,.0f}",
            f"{mean(run['curve'][-1]['flops'] for run in found[arm]):.2e}",
            "-" if arm == best else reached(best, arm),
        )
        for arm in ranked
    ]
    heads = ("tokens", "FLOPs", f"bytes that {best} needs to get there")
    return markdown_table(("arm", *languages, *heads), rows)


def plot(found: Mapping[str, Sequence[Mapping[str, Any]]], out: Path, title: str) -> None:
    """Bits per byte over bytes of text and over FLOPs, one line an arm, all seeds."""
    figure = Figure(figsize=(11, 4.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (key, label) in zip(
        axes, (("bytes", "bytes of text"), ("flops", "FLOPs")), strict=True
    ):
        for number, (arm, runs) in enumerate(found.items()):
            style = {"color": COLOURS[number % len(COLOURS)], "marker": "o", "markersize": 3}
            if number >= len(COLOURS):
                style["linestyle"] = "--"
            for seed, run in enumerate(runs):
                x, y = zip(*((p[key], p["bits_per_byte"]) for p in run["curve"]), strict=True)
                axis.plot(x, y, label=arm if seed == 0 else None, **style)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("held-out bits per byte")
    axes[1].legend(fontsize=8)
    figure.suptitle(title)
    with new_file(out) as scratch:
        figure.savefig(scratch, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    options = parser.parse_args()
    use_compilation_cache()
    config = StudyConfig.from_yaml(options.config)
    study = Study(config, options.out)
    before, after = {}, {}
    for arm in (OWN, *config.arms):
        before[arm] = study.before(arm)
        print(arm, before[arm], flush=True)
    tables = [table_before(before)]
    for seed in config.seeds:
        for arm in (OWN, *config.trained) if config.trained else ():
            after.setdefault(arm, []).append(study.after(arm, seed))
            print(arm, seed, after[arm][-1]["end"], flush=True)
        write_json(options.out / "study.json", {"before": before, "after": after})
        if after:
            tables = [table_before(before), table_after(after)]
            plot(after, options.out / "curves.png", options.config.stem)
        with new_file(options.out / "tables.md") as scratch:
            scratch.write_text("\n\n".join(tables) + "\n", "utf-8")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
