"""What is on the page: sections of sentences, tables, plots and samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from clp_jax.data.report.plots import plot_lengths, plot_steps

Sample = Mapping[str, Any]
"""A dropped document: its ``id``, the ``reason`` and the beginning of its ``text``."""

SAMPLES = 3
"""Shown of each reason."""
UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """Cells below headers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Of which columns each cell is a number, or unknown."""
        columns = [*zip(*self.rows, strict=True)] or [()] * len(self.headers)
        return [
            all(cell == UNKNOWN or cell.lstrip("-")[:1].isdigit() for cell in column)
            for column in columns
        ]


@dataclass(frozen=True)
class Plot:
    """A picture, for pages that can hold one."""

    png: bytes
    text: str


@dataclass(frozen=True)
class Verbatim:
    """Lines that are shown as they are."""

    text: str


class Section(NamedTuple):
    """Blocks below a heading; a plain string is a sentence."""

    title: str
    blocks: Sequence[str | Table | Plot | Verbatim]


def describe(manifest: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]) -> list[Section]:
    """Everything that the manifest says, in the order in which a person asks for it."""
    return [
        Section("The corpus", [_sizes(manifest), _left_out(manifest)]),
        Section("What each step did", [*_steps(manifest)]),
        Section("Tokens", [_fertility(manifest), *_lengths(manifest)]),
        Section("Sources", [_sources(manifest)]),
        Section("What was dropped, for example", [*_samples(samples)]),
        Section("How it was made", [*_origin(manifest)]),
    ]


def share(part: int, whole: int) -> str:
    """A percentage, or a dash if there is nothing to be a part of."""
    return f"{part / whole:.2%}" if whole else UNKNOWN


def rate(step: Mapping[str, Any]) -> str:
    """Megabytes a second of a step."""
    return f"{step['bytes'] / step['seconds'] / 1e6:,.2f}" if step["seconds"] else UNKNOWN


def _sizes(manifest: Mapping[str, Any]) -> Table:
    units = ("documents", "bytes", "words", "tokens")
    parts = {"training": manifest, "held out": manifest["heldout"] or {}}
    return Table(
        ("", *units),
        [
            (name, *(f"{part[unit]:,}" if unit in part else UNKNOWN for unit in units))
            for name, part in parts.items()
            if part
        ],
    )


def _left_out(manifest: Mapping[str, Any]) -> str:
    nothing = "" if manifest["heldout"] else " Nothing is held out."
    return (
        f"Left out when it was read: {manifest['broken']:,} broken records and "
        f"{manifest['empty']:,} without text.{nothing}"
    )


def _steps(manifest: Mapping[str, Any]) -> Iterator[str | Table | Plot]:
    steps = manifest["steps"]
    if not steps:
        yield "No step was asked for: every document is in the corpus."
        return
    kept = [manifest, manifest["heldout"] or {"documents": 0, "bytes": 0}]
    sizes = [*steps, {unit: sum(part[unit] for part in kept) for unit in ("documents", "bytes")}]
    yield Plot(
        plot_steps([step["name"] for step in steps], [size["documents"] for size in sizes]),
        "documents left after each step",
    )
    yield Table(
        ("step", "stage", "documents", "dropped", "share", "bytes", "less by", "seconds", "MB/s"),
        [
            (
                step["name"],
                step["stage"],
                f"{step['documents']:,}",
                f"{sum(step['dropped'].values()):,}",
                share(sum(step["dropped"].values()), step["documents"]),
                f"{step['bytes']:,}",
                share(step["bytes"] - after["bytes"], step["bytes"]),
                f"{step['seconds']:,.2f}",
                rate(step),
            )
            for step, after in pairwise(sizes)
        ],
    )
    yield (
        "Documents and bytes are those that reach a step; besides whole documents it may take out "
        "parts of them. Seconds are summed over all tasks, so that MB/s are those of one core."
    )
    yield Table(
        ("step", "what", "reason", "count", "of documents"),
        [
            (step["name"], what, reason, f"{count:,}", share(count, step["documents"]))
            for step in steps
            for what in ("dropped", "changed")
            for reason, count in step[what].items()
        ],
    )


def _fertility(manifest: Mapping[str, Any]) -> Table:
    fertility = manifest["fertility"]
    tokenizers = [(f"new: {manifest['tokenizer']}", fertility["new"])]
    if old := fertility.get("old"):
        tokenizers.append((f"old: {old['name']}", old))
    return Table(
        ("tokenizer", "tokens per word", "bytes per token"),
        [
            (name, f"{figures['tokens_per_word']:.3f}", f"{figures['bytes_per_token']:.3f}")
            for name, figures in tokenizers
        ],
    )


def _lengths(manifest: Mapping[str, Any]) -> Iterator[Plot | Table]:
    edges, documents = manifest["lengths"]["edges"], manifest["lengths"]["documents"]
    yield Plot(plot_lengths(edges, documents), "documents by their number of tokens")
    yield Table(
        ("tokens", "documents", "share"),
        [
            (f"{first:,} to {end - 1:,}", f"{count:,}", share(count, sum(documents)))
            for (first, end), count in zip(pairwise(edges), documents, strict=True)
        ],
    )


def _sources(manifest: Mapping[str, Any]) -> Table:
    return Table(
        ("input", "kind", "documents", "bytes"),
        [
            (source["input"], source["kind"], f"{source['documents']:,}", f"{source['bytes']:,}")
            for source in manifest["sources"]
        ],
    )


def _samples(samples: Mapping[str, Sequence[Sample]]) -> Iterator[str | Verbatim]:
    for step, dropped in samples.items():
        for reason in dict.fromkeys(sample["reason"] for sample in dropped):
            chosen = [sample for sample in dropped if sample["reason"] == reason]
            yield f"{step}: {reason}" if reason else step
            for sample in chosen[:SAMPLES]:
                yield Verbatim(f"[{sample['id']}]\n{sample['text']}")
    if not any(samples.values()):
        yield "There are no samples."


def _origin(manifest: Mapping[str, Any]) -> Iterator[Table | Verbatim]:
    facts = {
        "tokenizer": manifest["tokenizer"],
        "SHA-256 of the tokenizer": manifest["tokenizer_hash"],
        "SHA-256 of the tokens": manifest["fingerprint"],
        "type of the tokens": manifest["dtype"],
        "end of text": str(manifest["eos_id"]),
        **manifest["versions"],
    }
    yield Table(("what", "value"), [*facts.items()])
    yield Verbatim(yaml.safe_dump(manifest["recipe"], sort_keys=False, allow_unicode=True))
