"""Line deduplication: lines that occur in many documents, such as notices, menus and footers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from jaxtyping import UInt64

from clp_jax.data.dedup.findings import FindingsFilter
from clp_jax.data.dedup.fingerprints import among, buckets, hash_range, read_between, write_sorted
from clp_jax.data.seals import CheckSeals
from clp_jax.data.stages import Deduplication, ReadDocuments, Stage, Workspace
from clp_jax.data.words import composed

_COUNT = np.dtype([("hash", "<u8"), ("documents", "<u4"), ("task", "<u4")])
_FOUND = np.dtype([("hash", "<u8"), ("task", "<u4")])
_SHORTEST = 8  # characters: shorter lines ("Ja.", "Kapitel") recur in good text
_UNCOUNTED = 0  # the hash of those; its count is the number of all documents
_FEWEST = 100  # documents: a line in no more than these is not a notice, even in a small corpus


def drop_lines(share: float, workspace: Workspace) -> Deduplication:
    """Drop all but the first copy of each line that occurs in too many documents.

    Too many are more than ``share`` of all documents and more than 100. White space around a line
    does not count. Lines of fewer than 8 characters stay. Documents left empty are dropped.
    """
    counts, found = workspace.scratch / "counts", workspace.scratch / "found"
    count = buckets(workspace.tasks)
    return Deduplication(
        [
            Stage(
                "lines-sign",
                [ReadDocuments(workspace.documents), CountLines(counts)],
                workspace.tasks,
            ),
            Stage(
                "lines-find",
                [
                    CheckSeals(workspace.tasks, counts),
                    FindFrequentLines(counts, workspace.tasks, share, found),
                ],
                count,
            ),
        ],
        DropLines(found, count, workspace.samples),
    )


class CountLines(PipelineStep):
    """Write in how many documents of the task each line occurs, 16 bytes per line."""

    type = "DEDUPLICATE"
    name = "count lines"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Count the lines of a task."""
        with self.track_time("task"):
            every = np.array([_UNCOUNTED], np.uint64)
            hashes = [
                np.unique(np.append(_hashes(document.text.split("\n")), every)) for document in data
            ]
            distinct, documents = np.unique(
                np.concatenate([*hashes, np.empty(0, np.uint64)]), return_counts=True
            )
            counts = np.empty(len(distinct), _COUNT)
            counts["hash"], counts["documents"], counts["task"] = distinct, documents, rank
            write_sorted(self.folder, rank, counts, "hash")


class FindFrequentLines(PipelineStep):
    """Find the lines that occur in too many documents of all tasks, and each one's first task."""

    type = "DEDUPLICATE"
    name = "find frequent lines"

    def __init__(self, counts: Path, tasks: int, share: float, found: Path):
        super().__init__()
        self.counts = counts
        self.tasks = tasks
        self.share = share
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Find the frequent lines in one bucket."""
        with self.track_time("task"):
            every = self._read(_UNCOUNTED, _UNCOUNTED + 1)["documents"].sum()
            low, high = hash_range(rank, world_size)
            counts = self._read(max(low, _UNCOUNTED + 1), high)
            counts = counts[np.argsort(counts["hash"], kind="stable")]
            new = np.append(True, counts["hash"][1:] != counts["hash"][:-1])[: len(counts)]
            documents = np.add.reduceat(counts["documents"], np.flatnonzero(new))
            first = counts[new][documents > max(_FEWEST, self.share * every)]
            found = np.empty(len(first), _FOUND)
            found["hash"], found["task"] = first["hash"], first["task"]
            write_sorted(self.found, rank, found, "hash")

    def _read(self, low: int, high: int) -> np.ndarray:
        return read_between(self.counts, self.tasks, "hash", low, high)


class DropLines(FindingsFilter):
    """Drop frequent lines except for their first copy, and documents that hold nothing else."""

    name = "lines"

    def load(self, rank: int) -> None:
        """Read the frequent lines, and which of them have their first copy in the task."""
        found = self.read("hash", *hash_range(0, 1))
        self._frequent = np.ascontiguousarray(found["hash"])
        self._awaited = set(found["hash"][found["task"] == rank].tolist())

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Remove the lines; return whether any text is left."""
        every = doc.text.split("\n")
        hashes = _hashes(every)
        found = among(hashes, self._frequent)
        for place in np.flatnonzero(found).tolist():
            if (line := int(hashes[place])) in self._awaited:
                self._awaited.remove(line)
                found[place] = False
        if not found.any():
            return True
        dropped = [line for line, drop in zip(every, found, strict=True) if drop]
        self.stat_update("lines", value=len(dropped), unit="doc")
        rest = "\n".join(line for line, drop in zip(every, found, strict=True) if not drop)
        rest = rest.strip("\n")
        if not rest.strip():
            return False, "only frequent lines"
        doc.text = rest
        self.sample(doc, "\n".join(dropped), "frequent lines")
        return True


def _hashes(every: list[str]) -> UInt64[np.ndarray, " lines"]:
    stripped = (composed(line).strip() for line in every)
    return np.fromiter(
        (
            xxhash.xxh3_64_intdigest(line.encode()) if len(line) >= _SHORTEST else _UNCOUNTED
            for line in stripped
        ),
        np.uint64,
        len(every),
    )
