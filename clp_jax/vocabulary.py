"""Which tokens two tokenizers share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from clp_jax.checkpoint.hub import load_tokenizer

EXAMPLES = 8


@dataclass(frozen=True)
class VocabularyReport:
    """The overlap of a source and a target vocabulary.

    Every target id is of exactly one class: shared with the source (``target_ids``), missing from
    it (``missing_ids``), or a gap: an id below the highest one that names no token (``gap_ids``).

    Attributes:
        source_size: tokens of the source vocabulary.
        target_size: ids of the target vocabulary that have a token.
        source_rows: highest source id plus one, the least number of rows of a table for it.
        target_rows: highest target id plus one.
        source_ids: source ids of the shared tokens; ``source_ids[i]`` and ``target_ids[i]`` are
            the same token.
        target_ids: target ids of the shared tokens, ascending.
        missing_ids: target ids whose token the source lacks, ascending.
        gap_ids: target ids without a token, ascending.
        examples: a few tokens that are ``shared``, only in the ``source``, only in the ``target``.
    """

    source_size: int
    target_size: int
    source_rows: int
    target_rows: int
    source_ids: Int[np.ndarray, "shared"]
    target_ids: Int[np.ndarray, "shared"]
    missing_ids: Int[np.ndarray, "missing"]
    gap_ids: Int[np.ndarray, "gaps"]
    examples: dict[str, list[str]]

    @property
    def source_share(self) -> float:
        """Share of the source's tokens that the target has too."""
        return len(self.source_ids) / self.source_size if self.source_size else 0.0

    @property
    def target_share(self) -> float:
        """Share of the target's tokens that the source has too."""
        return len(self.target_ids) / self.target_size if self.target_size else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Counts, shares and examples, ready for JSON; the id arrays are left out."""
        return {
            "source_tokens": self.source_size,
            "target_tokens": self.target_size,
            "shared": len(self.target_ids),
            "missing": len(self.missing_ids),
            "gaps": len(self.gap_ids),
            "share_of_source": self.source_share,
            "share_of_target": self.target_share,
            "examples": self.examples,
        }

    def __str__(self) -> str:
        shared, missing, gaps = len(self.target_ids), len(self.missing_ids), len(self.gap_ids)
        only_source = self.source_size - shared
        lines = [
            f"source vocabulary  {self.source_size:>9,} tokens",
            f"target vocabulary  {self.target_size:>9,} tokens"
            + (f", {gaps:,} ids without a token" if gaps else ""),
            f"in both            {shared:>9,} tokens: {self.target_share:.1%} of the target, "
            f"{self.source_share:.1%} of the source",
            f"only in the target {missing:>9,} tokens",
            f"only in the source {only_source:>9,} tokens",
        ]
        headings = {"shared": "in both", "target": "only target", "source": "only source"}
        lines += [
            f"e.g. {headings[name]:<11} {'  '.join(map(repr, self.examples[name])) or 'none'}"
            for name in headings
        ]
        return "\n".join(lines)


def compare_vocabularies(source: str | Path, target: str | Path) -> VocabularyReport:
    """Compare the tokenizers of two Hugging Face folders or hub ids.

    Raises:
        UserError: one of them is missing or holds no readable tokenizer.
    """
    return match_vocabularies(
        load_tokenizer(source).get_vocab(), load_tokenizer(target).get_vocab()
    )


def match_vocabularies(source: Mapping[str, int], target: Mapping[str, int]) -> VocabularyReport:
    """Match two vocabularies (token -> id, added tokens included) by exact token string."""
    pairs = {id: source[token] for token, id in target.items() if token in source}
    shared = np.array(sorted(pairs), dtype=np.int64)
    used = np.array(sorted(set(target.values())), dtype=np.int64)
    rows = int(used[-1]) + 1 if len(used) else 0
    return VocabularyReport(
        source_size=len(source),
        target_size=len(used),
        source_rows=max(source.values(), default=-1) + 1,
        target_rows=rows,
        source_ids=np.array([pairs[id] for id in shared.tolist()], dtype=np.int64),
        target_ids=shared,
        missing_ids=np.setdiff1d(used, shared),
        gap_ids=np.setdiff1d(np.arange(rows), used),
        examples={
            "shared": _spread(target, lambda token: token in source),
            "source": _spread(source, lambda token: token not in target),
            "target": _spread(target, lambda token: token not in source),
        },
    )


def _spread(vocabulary: Mapping[str, int], wanted: Callable[[str], bool]) -> list[str]:
    """A few of the wanted tokens, evenly spread over the ids."""
    tokens = sorted(filter(wanted, vocabulary), key=vocabulary.__getitem__)
    chosen = np.linspace(0, len(tokens) - 1, min(EXAMPLES, len(tokens))).astype(int)
    return [tokens[i] for i in chosen]
