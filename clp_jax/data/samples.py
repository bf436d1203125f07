"""A few of the documents that a filter dropped, to look at."""

import hashlib
import heapq
from pathlib import Path

from datatrove.data import Document

from clp_jax.files import write_json

_KEPT = 5
_CHARACTERS = 300


class Samples:
    """What a datatrove filter takes as ``exclusion_writer``: keeps five documents a task.

    They are those with the smallest hash: the same five whenever a task is run again.

    Args:
        folder: A file ``FILTER/RANK.json`` is written in it: a list of id, reason and text.
        name: Name of the filter.
    """

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self.name = name
        self._kept: list[tuple[str, dict[str, str | None]]] = []
        self._rank = 0

    def __enter__(self) -> "Samples":
        self._kept = []
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept:
            samples = [sample for _, sample in sorted(self._kept, key=lambda kept: kept[0])]
            write_json(self.folder / self.name / f"{self._rank:05d}.json", samples)

    def write(self, document: Document, rank: int = 0) -> None:
        """Keep a dropped document, if its hash is small enough."""
        self._rank = rank
        key = hashlib.sha256(f"{document.id}\n{document.text}".encode()).hexdigest()
        sample = {
            "id": document.id,
            "reason": document.metadata.get("filter_reason"),
            "text": document.text[:_CHARACTERS],
        }
        self._kept = heapq.nsmallest(_KEPT, [*self._kept, (key, sample)], key=lambda kept: kept[0])
