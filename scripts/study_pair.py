"""One pair of models, every way to start: bits per byte before and after a little training.

    python scripts/study_pair.py configs/study/smollm2-135m-german.yaml --out study

For each arm of the configuration: the transfer, then bits per byte of held-out text of each
language. For those that are trained, and each seed: continued pretraining on the same text in the
same order, at a constant learning rate, so that every point of a curve is a result of its own. An
arm may be trained in phases, of which one with a teacher polishes the new rows, and on a mixture
with text of the source language (replay). The source with its own tokenizer is an arm too. What is
there already is not made again. Writes text/, arms/, study.json, tables.md and curves.png.
"""

import argparse
import hashlib
import math
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from clp_jax import RunConfig, evaluate_perplexity, prepare_corpus, train_model, transfer_model
from clp_jax.checkpoint.hub import MANIFEST, model_files, resolve
from clp_jax.config import Configuration
from clp_jax.data.corpus.store import Corpus
from clp_jax.data.io.readers import read_documents
from clp_jax.evaluate.plots import COLOURS, tokens_to_reach
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import new_file, new_folder, read_json, write_json
from clp_jax.limits import PartialShare
from clp_jax.mesh import use_compilation_cache
from clp_jax.models import abstract_model
from clp_jax.plan import planned_decoder
from clp_jax.quickstart.inputs import take, write_text
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.metrics import read_metrics
from clp_jax.train.teacher import open_teacher

MEASURED = "validation/byte_perplexity"
OWN = "own tokenizer"
"""The arm that is the source as it is."""
Point = dict[str, float]
"""Tokens, bytes of text and FLOPs of training so far, and bits per byte of the target language."""
Sections = dict[str, dict[str, Any]]
"""Sections of the configuration of a run."""


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
    passage_characters: int = 1000
    """All documents are cut into passages of at most so many characters."""
    sample_characters: int = 200_000
    """Characters to choose by, from the end of the shuffled text."""
    train_characters: int = 4_000_000
    """Characters to train on, from its beginning."""
    arms: dict[str, dict[str, Any]]
    """Options of `clp-jax transfer` by the name of the arm; ``data`` is the sample if not given."""
    phases: dict[str, tuple[Sections, ...]] = Field(default_factory=dict)
    """For each arm to train, what its phases of training have in addition to ``run``; an arm may
    begin with the rows of another: `ridge + polished` with those of `ridge`."""
    replay_text: tuple[str, ...] = ()
    """Text of the source language to train on, as many characters as of the target language."""
    replay: dict[str, PartialShare] = Field(default_factory=dict)
    """For trained arms, the share of the sequences that are of ``replay_text``."""
    run: Sections = Field(default_factory=dict)
    """Sections of a run, as for `clp-jax train`."""
    seeds: tuple[int, ...] = (0,)
    """Each decides the order of the text."""

    @model_validator(mode="after")
    def _complete(self) -> "StudyConfig":
        unknown = {transferred(arm) for arm in self.phases} - {OWN, *self.arms}
        if unknown:
            raise ValueError(f"phases: there is no arm {', '.join(sorted(unknown))}")
        if (untrained := self.replay.keys() - self.phases) or (
            self.replay and not self.replay_text
        ):
            missing = f"phases of {', '.join(sorted(untrained))}" if untrained else "replay_text"
            raise ValueError(f"replay: there is no {missing}")
        needed = {"steps", "batch_size", "validate_every"} - set(self.run.get("train", ()))
        if self.phases and needed:
            raise ValueError(f"run.train has no {', '.join(sorted(needed))}")
        return self


def transferred(arm: str) -> str:
    """The arm whose rows a trained arm begins with."""
    return arm.split(" + ")[0]


def write_texts(config: StudyConfig, out: Path) -> None:
    """Text to train on, text to choose by, and text to measure on, none of it twice."""
    if out.exists():
        return
    with new_folder(out) as folder:
        passages = shuffled_passages(config.text, config.passage_characters)
        train = take(passages, config.train_characters)
        sample = take(reversed(passages[len(train) :]), config.sample_characters)
        write_text(train, folder / "train.jsonl")
        if config.replay:
            passages = shuffled_passages(config.replay_text, config.passage_characters)
            write_text(take(passages, config.train_characters), folder / "replay.jsonl")
        write_text(sample, folder / "sample.jsonl")
        for language, files in config.heldout.items():
            passages = shuffled_passages([files], config.passage_characters)
            write_text(take(passages, config.heldout_characters), folder / f"{language}.jsonl")


def shuffled_passages(files: Sequence[str], characters: int) -> list[str]:
    """All passages of all documents, in random order."""
    passages = [
        document[start : start + characters]
        for document in read_documents(files)
        for start in range(0, len(document), characters)
    ]
    random.Random(0).shuffle(passages)
    return passages


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
            options = {"data": [str(self.texts / "sample.jsonl")], **self.config.arms[arm]}
            transfer_model(
                self.config.source,
                self.config.helper,
                folder,
                tokenizer=self.config.tokenizer,
                **options,
            )
        return folder

    def before(self, arm: str) -> dict[str, float]:
        """Bits per byte of each language before any training."""
        file = self.out / "arms" / arm / "before.json"
        if not file.exists():
            found = self._measure(self.start(arm), self.config.heldout)
            file.parent.mkdir(parents=True, exist_ok=True)
            if arm != OWN:
                shutil.copy(self.start(arm) / MANIFEST, file.parent)
            write_json(file, found)
            if arm != OWN and arm not in map(transferred, self.config.phases):
                shutil.rmtree(self.start(arm))
        return read_json(file)

    def recipes(self) -> dict[str, Any]:
        """The method of each transfer and its options: those of `auto` are what it chose."""
        manifests = {arm: self.out / "arms" / arm / MANIFEST for arm in self.config.arms}
        return {arm: read_json(file)["recipe"] for arm, file in manifests.items()}

    def _measure(self, model: Path, languages: Iterable[str]) -> dict[str, float]:
        length = self.config.run.get("data", {}).get("sequence_length", 256)
        return {
            language: evaluate_perplexity(
                model,
                [str(self.texts / f"{language}.jsonl")],
                sequence_length=length,
                batch_size=4,
            ).bits_per_byte
            for language in languages
        }

    def corpus(self, arm: str, text: str) -> str:
        """The folder of a text as tokens of the arm's tokenizer."""
        folder = self.out / "corpora" / f"{text}-{'own' if arm == OWN else 'new'}"
        if not folder.exists():
            model = self.start(transferred(arm))
            prepare_corpus([str(self.texts / f"{text}.jsonl")], model, folder)
        return str(folder)

    def after(self, arm: str, seed: int) -> dict[str, Any]:
        """The curve of a training, and bits per byte of each language at its end."""
        file = self.out / "arms" / arm / f"after-{seed}.json"
        if not file.exists():
            scratch = file.parent / f"run-{seed}"
            model, curve = self.start(transferred(arm)), list[Point]()
            for number, phase in enumerate(self.config.phases[arm]):
                run = scratch / str(number)
                sections = self._sections(arm, phase, model, run, seed + 1000 * number)
                curve += self._train(RunConfig.from_dict(sections), curve[-1:])
                model = run
            target, *others = self.config.heldout
            end = {target: curve[-1]["bits_per_byte"]} | self._measure(model, others)
            write_json(file, {"curve": curve, "end": end})
            shutil.rmtree(scratch)
        return read_json(file)

    def _train(self, config: RunConfig, last: list[Point]) -> list[Point]:
        """The curve of one phase, which goes on from the last point of the one before, if any."""
        train_model(config, resume=Path(config.train.out).exists())
        texts = [Corpus.open(part.path) for part in config.data.train]
        shares = config.data.weights or [1.0]
        length = sum(
            share * text.bytes / len(text) for share, text in zip(shares, texts, strict=True)
        )
        each = {"tokens": 1.0, "bytes": length, "flops": flops_per_token(config)}
        [start] = last or [dict.fromkeys(each, 0.0)]
        measured = [line for line in read_metrics(config.train.out) if MEASURED in line]
        return [
            {name: start[name] + line["tokens"] * step for name, step in each.items()}
            | {"bits_per_byte": math.log2(line[MEASURED])}
            for line in measured[len(last) :]
        ]

    def _sections(self, arm: str, phase: Sections, model: Path, run: Path, seed: int) -> Sections:
        """The run of a phase."""
        train: list[dict[str, Any]] = [{"path": self.corpus(arm, "train")}]
        if share := self.config.replay.get(arm):
            train[0]["weight"] = 1 - share
            train.append({"path": self.corpus(arm, "replay"), "weight": share})
        heldout = self.corpus(arm, next(iter(self.config.heldout)))
        sections: Sections = {
            "model": {"path": str(model)},
            "data": {"train": train, "validation": heldout},
            "optimizer": {"schedule": "constant"},
            "train": {"out": str(run), "seed": seed},
        }
        for name in {*sections, *self.config.run, *phase}:
            sections[name] = (
                sections.get(name, {}) | self.config.run.get(name, {}) | phase.get(name, {})
            )
        return sections

    def provenance(self) -> dict[str, Any]:
        """The configuration, and the SHA-256 of all that was read."""
        config, hashes = self.config, {}
        files = {f"text/{file.name}": file for file in sorted(self.texts.iterdir())}
        for name in (config.source, config.helper):
            weights = sorted(resolve(name).glob("*.safetensors"))
            files |= {f"{name}/{file.name}": file for file in weights}
        tokenizer = config.tokenizer or config.helper
        files[f"{tokenizer}/tokenizer.json"] = model_files(tokenizer) / "tokenizer.json"
        for name, file in files.items():
            with file.open("rb") as stream:
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"config": self.config.model_dump(mode="json"), "sha256": hashes}


def flops_per_token(config: RunConfig) -> int:
    """FLOPs of training on one token: what is frozen costs less, a teacher costs its own."""
    decoder = planned_decoder(config.model, lora=config.lora)
    teacher = open_teacher(config, decoder)
    return step_flops_per_token(abstract_model(decoder), config, teacher)


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
        """Bytes that the arm needs to reach what the other arm ends with, as its share of them.

        Seed by seed, for the seeds that both have.
        """
        shares = []
        for mine, theirs in zip(found[arm], found[other], strict=False):
            last = theirs["curve"][-1]
            curve = [(round(p["bytes"]), 2 ** p["bits_per_byte"]) for p in mine["curve"]]
            needed = tokens_to_reach(curve, 2 ** last["bits_per_byte"])
            if needed is None:
                return "-"
            shares.append(needed / last["bytes"])
        return interval(shares, ".0%")

    last = {arm: mean(run["end"][languages[0]] for run in runs) for arm, runs in found.items()}
    ranked = sorted(last, key=last.__getitem__)
    best = next(arm for arm in ranked if arm != OWN)
    rows = [
        (
            arm,
            *(interval([run["end"][name] for run in found[arm]], ".3f") for name in languages),
            f"{mean(run['curve'][-1]['bytes'] for run in found[arm]) / 1000:,.0f}",
            f"{mean(run['curve'][-1]['tokens'] for run in found[arm]):,.0f}",
            f"{mean(run['curve'][-1]['flops'] for run in found[arm]):.2e}",
            "-" if arm == best else reached(best, arm),
        )
        for arm in ranked
    ]
    heads = ("kB read", "tokens", "FLOPs", f"bytes that {best} needs to get there")
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
    known = study.provenance() | {"recipes": study.recipes(), "before": before, "after": after}
    tables = [table_before(before)]
    for seed in config.seeds:
        for arm in config.phases:
            after.setdefault(arm, []).append(study.after(arm, seed))
            print(arm, seed, after[arm][-1]["end"], flush=True)
        write_json(options.out / "study.json", known)
        if after:
            tables = [table_before(before), table_after(after)]
            plot(after, options.out / "curves.png", options.config.stem)
        with new_file(options.out / "tables.md") as scratch:
            scratch.write_text("\n\n".join(tables) + "\n", "utf-8")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
