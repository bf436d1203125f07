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
    sections = [
        Section("The corpus", [*_sizes(manifest)]),
        Section("What each step did", [*_steps(manifest["steps"]), *_reasons(manifest["steps"])]),
        Section("Tokens", [*_tokens(manifest)]),
        Section("Sources", [_sources(manifest["sources"])]),
        Section("What was dropped, for example", [*_samples(samples)]),
        Section("How it was made", [*_origin(manifest)]),
    ]
    return [section for section in sections if section.blocks]


def share(part: int, whole: int) -> str:
    """A percentage, or a dash if there is nothing to be a part of."""
    return f"{part / whole:.2%}" if whole else UNKNOWN


def rates(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Million characters a second that each step reads, as far as they are counted."""
    characters = [step["characters"] for step in steps]
    return [
        f"{read / step['seconds'] / 1e6:,.2f}" if read and step["seconds"] else UNKNOWN
        for read, step in zip(characters[:1] + characters[:-1], steps, strict=True)
    ]


def left_out(manifest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on the records that were skipped, where those are counted."""
    if "broken" in manifest:
        yield (
            f"Left out when it was read: {manifest['broken']:,} broken records and "
            f"{manifest['empty']:,} without text."
        )


def _sizes(manifest: Mapping[str, Any]) -> Iterator[str | Table]:
    units = [unit for unit in ("documents", "bytes", "words", "tokens") if unit in manifest]
    parts = {"training": manifest, "held out": manifest.get("heldout")}
    yield Table(
        ("", *units),
        [
            (name, *(_count(part.get(unit)) for unit in units))
            for name, part in parts.items()
            if part
        ],
    )
    if not parts["held out"]:
        yield "Nothing is held out."
    yield from left_out(manifest)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[str | Table | Plot]:
    if not steps:
        yield "No step was asked for: every document is in the corpus."
        return
    dropped = [sum(step["dropped"].values()) for step in steps]
    left = [step["documents"] - number for step, number in zip(steps, dropped, strict=True)]
    yield Plot(
        plot_steps([step["name"] for step in steps], [steps[0]["documents"], *left]),
        "documents left after each step",
    )
    characters = [step["characters"] for step in steps]
    headers = ("step", "stage", "documents", "dropped", "share", "characters left", "less by")
    yield Table(
        (*headers, "seconds", "M/s"),
        [
            (
                step["name"],
                step["stage"],
                f"{step['documents']:,}",
                f"{number:,}",
                share(number, step["documents"]),
                _count(step["characters"]),
                _loss(before, step["characters"]),
                f"{step['seconds']:,.2f}",
                rate,
            )
            for step, number, before, rate in zip(
                steps, dropped, [None, *characters[:-1]], rates(steps), strict=True
            )
        ],
    )
    yield (
        "Documents are those that reach a step; characters those that leave it, after documents "
        "were dropped and parts of others taken out. Seconds are summed over all tasks; M/s, "
        "million characters a second, are those of one core."
    )


def _reasons(steps: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    for what in ("dropped", "changed"):
        rows = [
            (step["name"], reason or UNKNOWN, f"{number:,}")
            for step in steps
            for reason, number in step[what].items()
        ]
        if rows:
            yield Table(("step", what, "count"), rows)


def _loss(before: int | None, after: int | None) -> str:
    return UNKNOWN if before is None or after is None else share(before - after, before)


def _tokens(manifest: Mapping[str, Any]) -> Iterator[Plot | Table]:
    if "fertility" not in manifest:
        return
    fertility = manifest["fertility"]
    tokenizers = [(f"new: {manifest['tokenizer']}", fertility["new"])]
    if old := fertility.get("old"):
        tokenizers.append((f"old: {old['name']}", old))
    yield Table(
        ("tokenizer", "tokens per word", "bytes per token"),
        [
            (name, f"{figures['tokens_per_word']:.3f}", f"{figures['bytes_per_token']:.3f}")
            for name, figures in tokenizers
        ],
    )
    edges, documents = manifest["lengths"]["edges"], manifest["lengths"]["documents"]
    yield Plot(plot_lengths(edges, documents), "documents by their number of tokens")
    yield Table(
        ("tokens", "documents", "share"),
        [
            (f"{first:,} to {end - 1:,}", f"{number:,}", share(number, sum(documents)))
            for (first, end), number in zip(pairwise(edges), documents, strict=True)
        ],
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for source in sources for key in source))
    return Table(
        columns,
        [
            [
                _count(source[key]) if isinstance(source[key], int) else source[key]
                for key in columns
            ]
            for source in sources
        ],
    )


def _samples(samples: Mapping[str, Sequence[Sample]]) -> Iterator[str | Verbatim]:
    for step, dropped in samples.items():
        for reason in dict.fromkeys(sample["reason"] for sample in dropped):
            chosen = [sample for sample in dropped if sample["reason"] == reason]
            yield f"{step}: {reason}" if reason else step
            for sample in chosen[:SAMPLES]:
                yield Verbatim(f"[{sample['id']}]\n{sample['text']}")


def _origin(manifest: Mapping[str, Any]) -> Iterator[Table | Verbatim]:
    names = {
        "tokenizer": "tokenizer",
        "tokenizer_hash": "SHA-256 of the tokenizer",
        "fingerprint": "fingerprint of the tokens",
        "dtype": "type of the tokens",
        "eos_id": "end of text",
    }
    facts = {
        name: str(manifest[key]) for key, name in names.items() if manifest.get(key) is not None
    }
    yield Table(("what", "value"), [*(facts | manifest.get("versions", {})).items()])
    yield Verbatim(yaml.safe_dump(manifest["recipe"], sort_keys=False, allow_unicode=True))
