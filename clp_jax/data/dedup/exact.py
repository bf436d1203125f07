"""Exact deduplication: documents that are identical to an earlier one."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from jaxtyping import UInt32

from clp_jax.data.dedup.findings import FindingsFilter
from clp_jax.data.dedup.fingerprints import buckets, hash_range, read_between, write_sorted
from clp_jax.data.seals import CheckSeals
from clp_jax.data.stages import Deduplication, ReadDocuments, Stage, Workspace
from clp_jax.data.words import composed

_FOUND = np.dtype([("task", "<u4"), ("index", "<u4")])


def write_found(
    folder: Path,
    rank: int,
    task: UInt32[np.ndarray, " documents"],
    index: UInt32[np.ndarray, " documents"],
) -> None:
    """Write which documents to drop: the task of each, and its index in the task."""
    found = np.empty(len(task), _FOUND)
    found["task"], found["index"] = task, index
    write_sorted(folder, rank, found, "task")


class DropFound(FindingsFilter):
    """Drop the documents that `write_found` recorded.

    Args:
        name: Name of the filter and its samples.
        found: Folder that `write_found` wrote to.
        files: Number of tasks that called it.
        samples: Folder for a few of the dropped documents.
    """

    def __init__(self, name: str, found: Path, files: int, samples: Path):
        self.name = name
        super().__init__(found, files, samples)

    def load(self, rank: int) -> None:
        """Read the indices of the documents to drop."""
        self._found = frozenset(self.read("task", rank, rank + 1)["index"].tolist())
        self._indices = count()

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether to keep the next document."""
        return (False, "copy") if next(self._indices) in self._found else True


_SIGNATURE = np.dtype([("hash", "<u8"), ("more", "<u8"), ("task", "<u4"), ("index", "<u4")])


def drop_copies(workspace: Workspace) -> Deduplication:
    """Drop documents whose text, apart from surrounding white space, is that of an earlier one.

    Composed letters (ü) equal decomposed ones (u and a mark above it).
    """
    signatures, found = workspace.scratch / "signatures", workspace.scratch / "found"
    count = buckets(workspace.tasks)
    return Deduplication(
        [
            Stage(
                "exact-sign",
                [ReadDocuments(workspace.documents), SignTexts(signatures)],
                workspace.tasks,
            ),
            Stage(
                "exact-find",
                [
                    CheckSeals(workspace.tasks, signatures),
                    FindCopies(signatures, workspace.tasks, found),
                ],
                count,
            ),
        ],
        DropFound("exact", found, count, workspace.samples),
    )


class SignTexts(PipelineStep):
    """Write the 128-bit hash (XXH3) of each document, 24 bytes per document."""

    type = "DEDUPLICATE"
    name = "sign texts"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Sign the documents of a task."""
        with self.track_time("task"):
            digests = [
                xxhash.xxh3_128_digest(composed(document.text).strip().encode())
                for document in data
            ]
            signatures = np.empty(len(digests), _SIGNATURE)
            halves = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
            signatures["hash"], signatures["more"] = halves.T
            signatures["task"], signatures["index"] = rank, np.arange(len(digests))
            write_sorted(self.folder, rank, signatures, "hash")


class FindCopies(PipelineStep):
    """Find all but the first of the documents that share a hash."""

    type = "DEDUPLICATE"
    name = "find copies"

    def __init__(self, signatures: Path, tasks: int, found: Path):
        super().__init__()
        self.signatures = signatures
        self.tasks = tasks
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Find the copies in one bucket."""
        with self.track_time("task"):
            bounds = hash_range(rank, world_size)
            signatures = read_between(self.signatures, self.tasks, "hash", *bounds)
            signatures = signatures[np.lexsort((signatures["more"], signatures["hash"]))]
            before, after = signatures[:-1], signatures[1:]
            same = (before["hash"] == after["hash"]) & (before["more"] == after["more"])
            copies = after[same]
            write_found(self.found, rank, copies["task"], copies["index"])
