"""What two vocabularies share, in arrays for the transfer and in words for a person."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

KINDS = ("exact", "role", "fuzzy")


@dataclass(frozen=True)
class VocabularyReport:
    """The overlap of a source and a target vocabulary.

    Every target id is of exactly one class: matched with a source token (``target_ids``), missing
    from the source (``missing_ids``), or a gap: an id below the highest one that names no token
    (``gap_ids``).

    Attributes:
        source_size: tokens of the source vocabulary.
        target_size: ids of the target vocabulary that have a token.
        source_rows: highest source id plus one, the least number of rows of a table for it.
        target_rows: highest target id plus one.
        source_ids: source ids of the matched tokens; ``source_ids[i]`` stands for the same as
            ``target_ids[i]``. A source id may occur more than once.
        target_ids: target ids of the matched tokens, ascending.
        kinds: how each of them was matched: ``exact`` by its bytes, ``role`` as a special token,
            ``fuzzy`` by nearly the same text.
        missing_ids: target ids whose token the source lacks, ascending.
        gap_ids: target ids without a token, ascending.
        fuzzy: tokens matched by each fuzzy rule, named by what it ignores; empty if none was asked
            for.
        classes: for classes of tokens that are treated by a rule of their own, the number in the
            ``source``, in the ``target``, and of the latter those that are ``matched``.
        examples: a few tokens of each kind and class, and of those only in the ``target`` or only
            in the ``source``, as Python would write them.
    """

    source_size: int
    target_size: int
    source_rows: int
    target_rows: int
    source_ids: Int[np.ndarray, "matched"]
    target_ids: Int[np.ndarray, "matched"]
    kinds: Shaped[np.ndarray, "matched"]
    missing_ids: Int[np.ndarray, "missing"]
    gap_ids: Int[np.ndarray, "gaps"]
    fuzzy: dict[str, int]
    classes: dict[str, dict[str, int]]
    examples: dict[str, list[str]]

    @property
    def anchors(self) -> Bool[np.ndarray, "matched"]:
        """Which pairs stand for the same text and so tell how the two models' rows relate.

        The rest were matched by role: their rows are worth copying, but say little of that.
        """
        return self.kinds != "role"

    @property
    def source_share(self) -> float:
        """Share of the source's tokens that are matched."""
        return self._share_of_source(np.ones(len(self.kinds), bool))

    @property
    def target_share(self) -> float:
        """Share of the target's tokens that are matched."""
        return len(self.target_ids) / self.target_size if self.target_size else 0.0

    def _share_of_source(self, pairs: Bool[np.ndarray, "matched"]) -> float:
        used = len(np.unique(self.source_ids[pairs]))
        return used / self.source_size if self.source_size else 0.0

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
            "kinds": {
                kind: {
                    "tokens": int((self.kinds == kind).sum()),
                    "share_of_source": self._share_of_source(self.kinds == kind),
                    "share_of_target": float((self.kinds == kind).sum() / max(self.target_size, 1)),
                }
                for kind in KINDS
            },
            "fuzzy": self.fuzzy,
            "classes": self.classes,
            "examples": self.examples,
        }

    def __str__(self) -> str:
        return str(self.to_dict())
