"""Documents that are equal to an earlier one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.data.deduplicate.found import DropFound, write_found
from clp_jax.data.deduplicate.records import buckets, hash_range, read_between, write_sorted
from clp_jax.data.documents import ReadDocuments
from clp_jax.data.stages import Deduplication, Place, Stage
from clp_jax.data.words import composed

_SIGNATURE = np.dtype([("hash", "<u8"), ("more", "<u8"), ("task", "<u4"), ("index", "<u4")])


def drop_copies(place: Place) -> Deduplication:
    """Drop documents whose text, but for blanks around it, is that of an earlier one.

    The same letters are the same text, composed (ü) or not (u and a mark above it).
    """
    signatures, found = place.scratch / "signatures", place.scratch / "found"
    count = buckets(place.tasks)
    return Deduplication(
        [
            Stage(
                "exact-sign", [ReadDocuments(place.documents), SignTexts(signatures)], place.tasks
            ),
            Stage("exact-find", [FindCopies(signatures, place.tasks, found)], count),
        ],
        DropFound("exact", found, count, place.samples),
    )


class SignTexts(PipelineStep):
    """Write the 128-bit hash (XXH3) of each document, 24 bytes a document."""

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
    """Find all but the first of the documents with the same hash."""

    type = "DEDUPLICATE"
    name = "find copies"

    def __init__(self, signatures: Path, tasks: int, found: Path):
        super().__init__()
        self.signatures = signatures
        self.tasks = tasks
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Find those of one bucket."""
        with self.track_time("task"):
            bounds = hash_range(rank, world_size)
            signatures = read_between(self.signatures, self.tasks, "hash", *bounds)
            signatures = signatures[np.lexsort((signatures["more"], signatures["hash"]))]
            before, after = signatures[:-1], signatures[1:]
            same = (before["hash"] == after["hash"]) & (before["more"] == after["more"])
            copies = after[same]
            write_found(self.found, rank, copies["task"], copies["index"])
