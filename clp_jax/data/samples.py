"""Samples of the documents that a filter dropped."""

import hashlib
import heapq
from pathlib import Path
from typing import Any

from datatrove.data import Document

from clp_jax.data.seals import check_seal, files_of_tasks, seal
from clp_jax.files import read_json, write_json

_KEPT = 5
_CHARACTERS = 300


def write_samples(folder: Path, name: str, rank: int, samples: list[dict[str, Any]]) -> None:
    """Write what a task reports of documents that are not kept: id, reason and text of each."""
    file = folder / name / f"{rank:05d}.json"
    write_json(file, samples)
    seal(folder / name, rank, file)


def read_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The samples of all tasks, by name.

    Raises:
        UserError: a file has changed since it was written.
    """
    samples: dict[str, list[dict[str, Any]]] = {}
    for inner in sorted(filter(Path.is_dir, folder.glob("*"))):
        for file in files_of_tasks(inner, ".json"):
            check_seal(inner, int(file.stem))
            samples.setdefault(inner.name, []).extend(read_json(file, list))
    return samples


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
            write_samples(self.folder, self.name, self._rank, samples)

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
