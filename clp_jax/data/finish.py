"""The last stage of `clp-jax prepare`: what all tasks have counted becomes manifest and report."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from jaxtyping import UInt32
from transformers import PreTrainedTokenizerBase

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.data.execution import logs_of
from clp_jax.data.report import write_report
from clp_jax.data.store import MANIFEST, describe, document_lengths, seal
from clp_jax.data.tokenize import HELDOUT
from clp_jax.errors import UserError
from clp_jax.files import public_name, read_json, write_json


class Finish(PipelineStep):
    """Write the manifest, the checksums and the report of a corpus whose tasks are all done.

    Args:
        folder: Folder of the corpus.
        work: Folder of the stages: logs, counts, samples.
        stages: Their names, in order.
        about: Further entries of the manifest.
        tokenizer: The tokenizer, or None where the text itself is the result.
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
        tokenizer: str | None,
        source_tokenizer: str | None,
    ):
        super().__init__()
        self.folder = folder
        self.work = work
        self.stages = stages
        self.about = about
        self.tokenizer = tokenizer
        self.source_tokenizer = source_tokenizer

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Nothing comes before or after this step; the manifest is the last thing written."""
        counts = [read_json(file) for file in sorted((self.work / "counts").glob("*.json"))]
        sources = _sum_sources(counts)
        manifest: dict[str, Any] = {
            **_total(sources),
            **self.about,
            "sources": sources,
            "steps": [step for stage in self.stages for step in _read_steps(self.work, stage)],
        }
        if not manifest["documents"]:
            dropped = {step["name"]: sum(step["dropped"].values()) for step in manifest["steps"]}
            raise UserError(
                "No document is left: "
                + ", ".join(f"{name} dropped {n}" for name, n in dropped.items() if n)
                + f"; look at some of them in {self.work / 'samples'}."
            )
        if self.tokenizer is None:
            self._report(manifest)
            write_json(self.folder / MANIFEST, manifest)
            return
        tokenizer = load_tokenizer(self.tokenizer)
        facts = [read_json(file) for file in sorted((self.work / "shards").glob("*.json"))]
        splits = {split: [fact[split] for fact in facts] for split in facts[0]}
        manifest |= describe(splits["train"], tokenizer)
        manifest["lengths"] = _histogram(document_lengths(self.folder, len(facts)))
        manifest["fertility"] = self._fertility(tokenizer, counts)
        if HELDOUT in splits:
            heldout = describe(splits[HELDOUT], tokenizer)
            manifest["heldout"] = {key: heldout[key] for key in ("documents", "tokens", "bytes")}
            seal(self.folder / HELDOUT, splits[HELDOUT], {**heldout, **self.about})
        self._report(manifest)
        seal(self.folder, splits["train"], manifest)
        yield from ()

    def _report(self, manifest: dict[str, Any]) -> None:
        write_report(self.folder, manifest, _read_samples(self.work / "samples"))

    def _fertility(
        self, tokenizer: PreTrainedTokenizerBase, counts: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        sample = [text for count in counts for text in count["sample"]]
        fertility = {"new": _measure(tokenizer, sample)}
        if self.source_tokenizer:
            source = load_tokenizer(self.source_tokenizer)
            name = public_name(self.source_tokenizer)
            fertility["old"] = {**_measure(source, sample), "name": name}
        return fertility


def _total(sources: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {key: sum(source[key] for source in sources) for key in ("documents", "words", "bytes")}


def _sum_sources(counts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for count in counts:
        for source, numbers in count["sources"].items():
            total[source].update(numbers)
    return [{"kind": source, **numbers} for source, numbers in total.items()]


def _read_steps(work: Path, stage: str) -> list[dict[str, Any]]:
    """What the filters of a stage have done, over all its tasks.

    datatrove counts what enters ("total"), what goes on ("forwarded", "doc_len") and what is
    dropped for each reason; everything else is a count of what was changed.
    """
    totals: list[tuple[str, float, Counter[str]]] = []
    for file in sorted((logs_of(work, stage) / "stats").glob("*.json")):
        for number, step in enumerate(read_json(file)):
            if number == len(totals):
                totals.append((step["name"].partition(": ")[2], 0.0, Counter()))
            name, seconds, sums = totals[number]
            sums.update({key: _value(stat) for key, stat in step["stats"].items()})
            totals[number] = (name, seconds + step["time_stats"]["total"], sums)
    return [
        {
            "stage": stage,
            "name": name,
            "documents": sums.pop("total"),
            "characters": sums.pop("doc_len", None),
            "dropped": _reasons(sums),
            "changed": {key: n for key, n in sums.items() if key != "forwarded"},
            "seconds": seconds,
        }
        for name, seconds, sums in totals
        if "total" in sums
    ]


def _value(stat: Any) -> int:
    return stat["total"] if isinstance(stat, dict) else stat


def _reasons(sums: Counter[str]) -> dict[str, int]:
    """Take what was dropped out of ``sums``: by reason, where the filter gives one."""
    dropped = sums.pop("dropped", 0)
    reasons = {key: sums.pop(key) for key in [*sums] if key.startswith("dropped_")}
    reasons = {key.removeprefix("dropped_"): n for key, n in reasons.items()}
    return reasons or ({"": dropped} if dropped else {})


def _read_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    samples: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*/*.json")):
        samples.setdefault(file.parent.name, []).extend(read_json(file))
    return samples


def _histogram(lengths: UInt32[np.ndarray, "documents 2"]) -> dict[str, list[int]]:
    """Documents by their number of tokens, in bins that double: 1, 2 to 3, 4 to 7, ..."""
    bins = np.bincount(np.frexp(lengths[:, 0])[1] - 1)
    return {"edges": [1 << n for n in range(len(bins) + 1)], "documents": bins.tolist()}


def _measure(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, float]:
    tokens = sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    return {
        "tokens_per_word": tokens / sum(len(text.split()) for text in texts),
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
    }
