"""The content of the report: sections of sentences, tables, plots and samples."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import yaml

from clp_jax.data.corpus.store import lost_text
from clp_jax.data.report.plots import plot_lengths, plot_steps
from clp_jax.pages import Plot, Section, Table, Verbatim
from clp_jax.pages.blocks import UNKNOWN

Sample = Mapping[str, Any]
"""Dropped text: its ``id``, if it has one, the ``reason`` and the beginning of its ``text``."""

SAMPLES = 3
"""Samples shown per reason."""
REASONS = 8
"""Reasons shown per step."""


def describe(manifest: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]) -> list[Section]:
    """All facts of the manifest, in the order in which a reader needs them."""
    sections = [
        Section("The corpus", [*_sizes(manifest)]),
        Section("What each step did", [*_steps(manifest), *_reasons(manifest["steps"])]),
        Section("Tokens", [*_tokens(manifest)]),
        Section("Sources", [_sources(manifest["sources"])]),
        Section("Examples of what was dropped", [*_samples(samples)]),
        Section("How it was made", [*_origin(manifest)]),
    ]
    return [section for section in sections if section.blocks]


def percentage(part: int, whole: int) -> str:
    """``part`` as a percentage of ``whole``, or a dash if ``whole`` is 0."""
    return f"{part / whole:.2%}" if whole else UNKNOWN


def rate(step: Mapping[str, Any]) -> str:
    """The speed of a step in million characters per second."""
    return f"{step['characters'] / step['seconds'] / 1e6:,.2f}" if step["seconds"] else UNKNOWN


def left_out(manifest: Mapping[str, Any]) -> str:
    """A sentence on the records that were skipped."""
    return (
        f"Skipped while reading: {manifest['broken']:,} broken records and "
        f"{manifest['empty']:,} without text."
    )


def _sizes(manifest: Mapping[str, Any]) -> Iterator[str | Table]:
    units = [unit for unit in ("documents", "bytes", "words", "tokens") if unit in manifest]
    parts = {"training": manifest, "held out": manifest["heldout"]}
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
    yield left_out(manifest)


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _steps(manifest: Mapping[str, Any]) -> Iterator[str | Table | Plot]:
    steps = manifest["steps"]
    if not steps:
        yield "No steps were requested: every document is in the corpus."
        return
    dropped = [sum(step["dropped"].values()) for step in steps]
    left = [step["documents"] - number for step, number in zip(steps, dropped, strict=True)]
    yield Plot(
        plot_steps([step["name"] for step in steps], [steps[0]["documents"], *left]),
        "documents left after each step",
    )
    characters = [step["characters"] for step in steps] + [manifest["characters"]]
    rows = [
        (
            step["name"],
            step["stage"],
            f"{step['documents']:,}",
            f"{number:,}",
            percentage(number, step["documents"]),
            f"{before:,}",
            percentage(before - after, before),
            f"{step['seconds']:,.2f}",
            rate(step),
        )
        for step, number, (before, after) in zip(steps, dropped, pairwise(characters), strict=True)
    ]
    kept = ("kept", UNKNOWN, f"{left[-1]:,}", UNKNOWN, UNKNOWN, f"{characters[-1]:,}")
    headers = ("step", "stage", "documents", "dropped", "share", "characters", "removed")
    yield Table((*headers, "seconds", "M/s"), [*rows, (*kept, UNKNOWN, UNKNOWN, UNKNOWN)])
    yield (
        "Documents and characters are those that reach a step. The share of characters removed "
        "covers dropped documents and cuts in others. Seconds are summed over all tasks; M/s is "
        "million characters per second on one core."
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


def _tokens(manifest: Mapping[str, Any]) -> Iterator[str | Plot | Table]:
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
    if note := lost_text(manifest.get("unknown_bytes", 0), manifest["bytes"]):
        yield note
    edges, documents = manifest["lengths"]["edges"], manifest["lengths"]["documents"]
    yield Plot(plot_lengths(edges, documents), "documents by number of tokens")
    yield Table(
        ("tokens", "documents", "share"),
        [
            (f"{first:,} to {end - 1:,}", f"{number:,}", percentage(number, sum(documents)))
            for (first, end), number in zip(pairwise(edges), documents, strict=True)
        ],
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for source in sources for key in source))
    return Table(
        [key.replace("_", " ") for key in columns],
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
        by_reason: dict[str | None, list[Sample]] = {}
        for sample in dropped:
            by_reason.setdefault(sample["reason"], []).append(sample)
        for reason, chosen in islice(by_reason.items(), REASONS):
            yield f"{step}: {reason}" if reason else step
            for sample in chosen[:SAMPLES]:
                name = f"[{sample['id']}]\n" if "id" in sample else ""
                yield Verbatim(f"{name}{sample['text']}")


def _origin(manifest: Mapping[str, Any]) -> Iterator[Table | Verbatim]:
    names = {
        "tokenizer": "tokenizer",
        "tokenizer_hash": "SHA-256 of the tokenizer",
        "fingerprint": "fingerprint of the tokens",
        "dtype": "dtype of the tokens",
        "eos_id": "end-of-text id",
    }
    facts = {
        name: str(manifest[key]) for key, name in names.items() if manifest.get(key) is not None
    }
    yield Table(("property", "value"), [*(facts | manifest.get("versions", {})).items()])
    yield Verbatim(yaml.safe_dump(manifest["recipe"], sort_keys=False, allow_unicode=True))
