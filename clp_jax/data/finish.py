"""The last stage of `clp-jax prepare` turns the counts of all tasks into manifest and report."""

import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.data.corpus.store import MANIFEST, describe, lengths_name, write_manifest
from clp_jax.data.corpus.tokenize import HELDOUT, KEPT, SAMPLES, SHARDS, TRAIN, read_facts
from clp_jax.data.report import write_report
from clp_jax.data.samples import read_samples
from clp_jax.data.seals import files_of_tasks
from clp_jax.data.stages import logs_of
from clp_jax.errors import UserError
from clp_jax.files import public_name, read_json, remove_partial, write_json
from clp_jax.tokenizer import Tokenizer

_SAMPLED = 1000
"""Number of documents whose first 5,000 characters the tokenizers are measured on."""


class NothingLeft(UserError):
    """The tasks are done but leave no corpus; resuming would give the same result."""


class Finish(PipelineStep):
    """Write the manifest, checksums and report of a corpus whose tasks are all done.

    Args:
        folder: Folder of the corpus.
        work: Folder of the stages: logs, counts, samples.
        stages: Names of the stages that the report covers, in order.
        about: Further entries of the manifest.
        tokenizer: The tokenizer, or None if the corpus is plain text.
        source_tokenizer: Another tokenizer to compare it with.
    """

    type = "FINISH"
    name = "corpus"

    def __init__(
        self,
        folder: Path,
        work: Path,
        stages: Sequence[str],
        about: Mapping[str, Any],
        tokenizer: Tokenizer | None,
        source_tokenizer: str | Path | None,
    ):
        super().__init__()
        self.folder = folder
        self.work = work
        self.stages = stages
        self.about = about
        self.tokenizer = tokenizer
        self.source_tokenizer = source_tokenizer

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the files, the manifest last; the only step of its stage."""
        kept = _counted(self.work / KEPT)
        steps = [step for stage in self.stages for step in _read_counts(self.work, stage)]
        manifest: dict[str, Any] = {
            **_total(kept),
            **self.about,
            "sources": _sources(self.about["recipe"]["sources"], steps[0].counts, kept),
            "broken": sum(step.counts["broken"] for step in steps),
            "empty": sum(step.counts["empty"] for step in steps),
            "steps": _describe_steps(steps),
            "heldout": None,
        }
        remove_partial(self.folder)
        if not manifest["documents"]:
            raise NothingLeft(self._nothing_left(manifest))
        if kept[HELDOUT].get("documents") == manifest["documents"]:
            raise NothingLeft(
                f"All {manifest['documents']} documents are held out: lower corpus.heldout."
            )
        if self.tokenizer is None:
            self._finish_text(manifest, kept[HELDOUT])
            return
        facts = read_facts(self.work / SHARDS)
        splits = {split: [fact[split] for fact in facts] for split in facts[0]}
        manifest |= describe(splits[TRAIN], self.tokenizer)
        manifest["lengths"] = _histogram(self.folder, len(facts))
        manifest["fertility"] = self._fertility(self.tokenizer, kept)
        if any(shard["documents"] for shard in splits.get(HELDOUT, ())):
            heldout = describe(splits[HELDOUT], self.tokenizer)
            manifest["heldout"] = {
                key: heldout[key] for key in ("documents", "words", "bytes", "tokens")
            }
            write_manifest(self.folder / HELDOUT, splits[HELDOUT], {**heldout, **self.about})
        self._report(manifest)
        write_manifest(self.folder, splits[TRAIN], manifest)
        self._remove_empty(manifest)
        yield from ()

    def _finish_text(self, manifest: dict[str, Any], heldout: Mapping[str, int]) -> None:
        if heldout:
            manifest |= {unit: manifest[unit] - number for unit, number in heldout.items()}
            manifest["heldout"] = heldout
        self._report(manifest)
        write_json(self.folder / MANIFEST, manifest)
        self._remove_empty(manifest)

    def _remove_empty(self, manifest: Mapping[str, Any]) -> None:
        """Remove the held-out part if it is empty; last, since a repetition checks its files."""
        if manifest["heldout"] is None:
            shutil.rmtree(self.folder / HELDOUT, ignore_errors=True)

    def _nothing_left(self, manifest: Mapping[str, Any]) -> str:
        steps = [
            f"{step['name']} dropped {sum(step['dropped'].values())} ({', '.join(step['dropped'])})"
            for step in manifest["steps"]
            if step["dropped"]
        ]
        if steps:
            return f"No document is left: {', '.join(steps)}; relax these rules."
        names = ", ".join(source["input"] for source in manifest["sources"])
        broken = f", and {manifest['broken']} records are broken" if manifest["broken"] else ""
        return f"{names}: no document holds any text{broken}."

    def _report(self, manifest: dict[str, Any]) -> None:
        write_report(self.folder, manifest, read_samples(self.work / SAMPLES))

    def _fertility(self, tokenizer: Tokenizer, kept: Mapping[str, Any]) -> dict[str, Any]:
        fertility: dict[str, Any] = {"new": _measure(tokenizer, kept["sample"])}
        if self.source_tokenizer:
            source = load_tokenizer(self.source_tokenizer)
            name = public_name(self.source_tokenizer)
            fertility["old"] = {**_measure(source, kept["sample"]), "name": name}
        return fertility


class _Step(NamedTuple):
    stage: str
    name: str
    seconds: float
    counts: Counter[str]


def _read_counts(work: Path, stage: str) -> list[_Step]:
    """datatrove's counts for each step of a stage, over all tasks that it marked as completed."""
    steps: list[_Step] = []
    logs = logs_of(work, stage)
    for mark in files_of_tasks(logs / "completions", ""):
        for number, found in enumerate(read_json(logs / "stats" / f"{mark.name}.json", list)):
            if number == len(steps):
                steps.append(_Step(stage, found["name"].partition(": ")[2], 0.0, Counter()))
            step = steps[number]
            step.counts.update({key: _value(stat) for key, stat in found["stats"].items()})
            seconds = step.seconds + _value(found["time_stats"])
            steps[number] = step._replace(seconds=seconds)
    return steps


def _describe_steps(steps: Sequence[_Step]) -> list[dict[str, Any]]:
    """What each filter did with the documents that reached it.

    datatrove counts the documents that enter a filter ("total") and those that pass ("forwarded",
    with their characters, "doc_len") or are dropped for each reason; all other counts are changes.
    """
    described, characters = [], 0
    for stage, name, seconds, counts in steps:
        if "total" in counts:
            reasons = {key: n for key, n in counts.items() if key.startswith("dropped_")}
            known = {"total", "forwarded", "doc_len", "dropped", *reasons}
            dropped = {key.removeprefix("dropped_"): n for key, n in reasons.items()}
            described.append(
                {
                    "stage": stage,
                    "name": name,
                    "documents": counts["total"],
                    "characters": characters,
                    "dropped": dropped or ({"": counts["dropped"]} if counts["dropped"] else {}),
                    "changed": {key: n for key, n in counts.items() if key not in known},
                    "seconds": seconds,
                }
            )
        characters = counts.get("doc_len", characters)
    return described


def _value(stat: Any) -> Any:
    return stat["total"] if isinstance(stat, dict) else stat


def _counted(folder: Path) -> dict[str, Any]:
    """The counts per source and held out, summed over all tasks, and a sample of the texts."""
    sources: dict[str, Counter[str]] = defaultdict(Counter)
    heldout: Counter[str] = Counter()
    sample: list[str] = []
    for facts in read_facts(folder):
        for source, numbers in facts["sources"].items():
            sources[source].update(numbers)
        heldout.update(facts[HELDOUT])
        sample = sorted({*sample, *facts["sample"]}, key=_digest)[:_SAMPLED]
    return {"sources": sources, HELDOUT: heldout, "sample": sample}


def _total(counted: Mapping[str, Any]) -> dict[str, int]:
    sources = counted["sources"].values()
    return {
        key: sum(source[key] for source in sources)
        for key in ("documents", "words", "characters", "bytes")
    }


def _sources(
    sources: Sequence[Mapping[str, Any]], read: Counter[str], kept: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """How much was read from each source, and how much of it is kept."""
    return [
        {
            "kind": source["kind"],
            "input": source["input"],
            **{key: read[f"{key}_{number}"] for key in ("documents", "bytes")},
            **{f"{key}_kept": kept["sources"][str(number)][key] for key in ("documents", "bytes")},
        }
        for number, source in enumerate(sources)
    ]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _histogram(folder: Path, shards: int) -> dict[str, list[int]]:
    """Documents by number of tokens, in bins that double: 1, 2 to 3, 4 to 7, ..."""
    bins: Counter[int] = Counter()
    for shard in range(shards):
        lengths = np.load(folder / lengths_name(shard, shards))[:, 0]
        bins.update(dict(enumerate(np.bincount(np.frexp(lengths)[1] - 1).tolist())))
    count = max(n for n, documents in bins.items() if documents) + 1
    return {
        "edges": [1 << n for n in range(count + 1)],
        "documents": [bins[n] for n in range(count)],
    }


def _measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float]:
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    return {
        "tokens_per_word": tokens / sum(len(text.split()) for text in texts),
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
    }
