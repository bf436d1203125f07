"""Lines that stand in many documents: notices, menus, footers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from jaxtyping import UInt64

from clp_jax.data.deduplicate.records import among, buckets, hash_range, read_between, write_sorted
from clp_jax.data.documents import ReadDocuments
from clp_jax.data.samples import Samples
from clp_jax.data.stages import Deduplication, Place, Stage

_COUNT = np.dtype([("hash", "<u8"), ("documents", "<u4")])
_SHORTEST = 8  # characters: shorter lines ("Ja.", "Kapitel") are said again and again
_UNCOUNTED = 0


def drop_lines(limit: int, place: Place) -> Deduplication:
    """Drop each line, but for blanks around it, that stands in more than ``limit`` documents.

    Lines of fewer than 8 characters stay. Documents of which nothing stays are dropped.
    """
    counts, found = place.scratch / "counts", place.scratch / "found"
    count = buckets(place.tasks)
    return Deduplication(
        [
            Stage("lines-sign", [ReadDocuments(place.documents), CountLines(counts)], place.tasks),
            Stage("lines-find", [FindFrequentLines(counts, place.tasks, limit, found)], count),
        ],
        DropLines(found, count, place.samples),
    )


class CountLines(PipelineStep):
    """Write in how many documents of the task each line stands, 12 bytes a line."""

    type = "DEDUPLICATE"
    name = "count lines"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Count the lines of a task."""
        with self.track_time("task"):
            hashes = [np.unique(_hashes(document.text.split("\n"))) for document in data]
            distinct, documents = np.unique(
                np.concatenate([*hashes, np.empty(0, np.uint64)]), return_counts=True
            )
            counts = np.empty(len(distinct), _COUNT)
            counts["hash"], counts["documents"] = distinct, documents
            write_sorted(self.folder, rank, counts[distinct != _UNCOUNTED], "hash")


class FindFrequentLines(PipelineStep):
    """Find the lines that stand in more than ``limit`` documents of all tasks together."""

    type = "DEDUPLICATE"
    name = "find frequent lines"

    def __init__(self, counts: Path, tasks: int, limit: int, found: Path):
        super().__init__()
        self.counts = counts
        self.tasks = tasks
        self.limit = limit
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Find those of one bucket."""
        with self.track_time("task"):
            bounds = hash_range(rank, world_size)
            counts = read_between(self.counts, self.tasks, "hash", *bounds)
            counts = counts[np.argsort(counts["hash"], kind="stable")]
            new = np.append(True, counts["hash"][1:] != counts["hash"][:-1])[: len(counts)]
            found = counts[new]
            found["documents"] = np.add.reduceat(counts["documents"], np.flatnonzero(new))
            write_sorted(self.found, rank, found[found["documents"] > self.limit], "hash")


class DropLines(BaseFilter):
    """Drop the lines that were found, and the documents that hold nothing else."""

    name = "lines"

    def __init__(self, found: Path, files: int, samples: Path):
        super().__init__(exclusion_writer=Samples(samples, self.name))
        self.found = found
        self.files = files

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of which something stays."""
        self._rank = rank
        found = read_between(self.found, self.files, "hash", *hash_range(0, 1))
        self._frequent = np.ascontiguousarray(found["hash"])
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Take the lines out; whether anything stays."""
        every = doc.text.split("\n")
        found = among(_hashes(every), self._frequent)
        if not found.any():
            return True
        dropped = [line for line, drop in zip(every, found, strict=True) if drop]
        self.stat_update("lines", value=len(dropped), unit="doc")
        rest = "\n".join(line for line, drop in zip(every, found, strict=True) if not drop).strip()
        if not rest:
            return False, "only frequent lines"
        doc.text = rest
        sample = Document("\n".join(dropped), doc.id, metadata={"filter_reason": "frequent lines"})
        self.exclusion_writer.write(sample, self._rank)
        return True


def _hashes(every: list[str]) -> UInt64[np.ndarray, "lines"]:
    stripped = (line.strip() for line in every)
    return np.fromiter(
        (
            xxhash.xxh3_64_intdigest(line.encode()) if len(line) >= _SHORTEST else _UNCOUNTED
            for line in stripped
        ),
        np.uint64,
        len(every),
    )
