"""The report on what two vocabularies share: arrays for the transfer, text for people."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from clp_jax.vocabulary.fertility import Fertility

KINDS = {"exact": "same bytes", "role": "same role", "fuzzy": "nearly the same"}
LABELS = {
    "names of bytes": "byte-fallback tokens",
    "parts of a character": "partial UTF-8",
    "ids without a token": "unassigned ids",
}
"""Printed names of classes, where they differ from the key in JSON."""

WIDTH = 100


@dataclass(frozen=True)
class VocabularyReport:
    """The overlap of a source and a target vocabulary.

    Every target id is in exactly one of ``target_ids`` (matched with a source token),
    ``missing_ids`` (its token is not in the source) and ``unassigned_ids`` (no token has the id).

    Attributes:
        source_size: number of tokens in the source vocabulary.
        target_size: number of tokens in the target vocabulary.
        source_rows: highest source id plus one, the minimum number of rows of its table.
        target_rows: highest target id plus one.
        source_ids: source ids of the matched tokens; ``source_ids[i]`` matches ``target_ids[i]``. A
            source id may occur more than once.
        target_ids: target ids of the matched tokens, ascending.
        kinds: how each of them matches: ``exact`` by its bytes, ``role`` as a special token,
            ``fuzzy`` by nearly the same text.
        missing_ids: target ids whose token the source lacks, ascending.
        unassigned_ids: target ids without a token, ascending.
        fuzzy: number of tokens matched by each fuzzy rule, by what it ignores; empty without fuzzy
            matching.
        classes: for each class of tokens with a rule of its own, the number in the ``source``, in
            the ``target``, and the number of the latter that are ``matched``.
        examples: a few tokens of each kind and class, and of those only in the ``target`` or only
            in the ``source``, as Python literals.
        text: statistics of both tokenizers on running text, if text was given.
    """

    source_size: int
    target_size: int
    source_rows: int
    target_rows: int
    source_ids: Int[np.ndarray, " matched"]
    target_ids: Int[np.ndarray, " matched"]
    kinds: Shaped[np.ndarray, " matched"]
    missing_ids: Int[np.ndarray, " missing"]
    unassigned_ids: Int[np.ndarray, " gaps"]
    fuzzy: dict[str, int]
    classes: dict[str, dict[str, int]]
    examples: dict[str, list[str]]
    text: Fertility | None = None

    @property
    def anchors(self) -> Bool[np.ndarray, " matched"]:
        """Which pairs have exactly the same text and so show how the two models' rows relate.

        The others match by role or fuzzily: their rows are worth copying, but say little about
        that relation.
        """
        return self.kinds == "exact"

    @property
    def source_share(self) -> float:
        """Share of the source's tokens that are matched."""
        return self.share_of_source(*KINDS)

    @property
    def target_share(self) -> float:
        """Share of the target's tokens that are matched."""
        return self.share_of_target(*KINDS)

    def share_of_source(self, *kinds: str) -> float:
        """Share of the source's tokens that are matched in one of these ways."""
        used = np.unique(self.source_ids[np.isin(self.kinds, kinds)])
        return len(used) / max(self.source_size, 1)

    def share_of_target(self, *kinds: str) -> float:
        """Share of the target's tokens that are matched in one of these ways."""
        return int(np.isin(self.kinds, kinds).sum()) / max(self.target_size, 1)

    def to_dict(self) -> dict[str, Any]:
        """Counts, shares and examples, ready for JSON, without the id arrays."""
        return {
            "source_tokens": self.source_size,
            "target_tokens": self.target_size,
            "shared": len(self.target_ids),
            "missing": len(self.missing_ids),
            "gaps": len(self.unassigned_ids),
            "share_of_source": self.source_share,
            "share_of_target": self.target_share,
            "kinds": {
                kind: {
                    "tokens": int((self.kinds == kind).sum()),
                    "share_of_source": self.share_of_source(kind),
                    "share_of_target": self.share_of_target(kind),
                }
                for kind in KINDS
            },
            "fuzzy": self.fuzzy,
            "classes": self.classes,
            "examples": self.examples,
            "text": self.text and self.text.to_dict(),
        }

    def __str__(self) -> str:
        unused = self.source_size - len(np.unique(self.source_ids))
        shares = [
            _line("", ("tokens", "of target", "of source"), ["for example"]),
            _line("source vocabulary", (f"{self.source_size:,}",)),
            _line("target vocabulary", (f"{self.target_size:,}",)),
            _line("in both", self._shares(*KINDS)),
            *(
                _line(f"  {name}", self._shares(kind), self.examples[kind])
                for kind, name in KINDS.items()
                if kind != "fuzzy" or self.fuzzy
            ),
            *(_line(f"    except for {rule}", (f"{n:,}",)) for rule, n in self.fuzzy.items()),
            _line(
                "only in the target",
                (f"{len(self.missing_ids):,}", f"{1 - self.target_share:.1%}", ""),
                self.examples["target"],
            ),
            _line(
                "only in the source",
                (f"{unused:,}", "", f"{1 - self.source_share:.1%}"),
                self.examples["source"],
            ),
        ]
        classes = [
            _line(
                LABELS.get(name, name),
                (f"{n:,}" for n in counts.values()),
                self.examples.get(name, ()),
            )
            for name, counts in self.classes.items()
            if any(counts.values())
        ]
        if classes:
            classes = ["", _line("", ("source", "target", "matched"), ["for example"]), *classes]
        return "\n".join([*shares, *classes, *(["", str(self.text)] if self.text else [])])

    def _shares(self, *kinds: str) -> tuple[str, str, str]:
        count = int(np.isin(self.kinds, kinds).sum())
        of_target, of_source = self.share_of_target(*kinds), self.share_of_source(*kinds)
        return f"{count:,}", f"{of_target:.1%}", f"{of_source:.1%}"


def _line(label: str, cells: Iterable[str], examples: Iterable[str] = ()) -> str:
    """A line of the report, with as many examples as fit."""
    line = f"{label:<32}" + "".join(f"{cell:>10}" for cell in cells)
    for example in examples:
        if len(line.ljust(62)) + 2 + len(example) <= WIDTH:
            line = f"{line:<62}  {example}"
    return line.rstrip()
