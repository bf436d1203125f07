"""Samples of the documents that a filter dropped."""

import hashlib
import heapq
from pathlib import Path

from datatrove.data import Document

from clp_jax.files import write_json

_KEPT = 5
_CHARACTERS = 300


class Samples:
    """An ``exclusion_writer`` for datatrove filters that keeps five documents per task.

    They are those with the smallest hashes, so a rerun of a task keeps the same five.

    Args:
        folder: Folder in which ``FILTER/RANK.json`` is written: a list of id, reason and text.
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
