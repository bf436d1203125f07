"""Documents that are nearly equal to another one: MinHash, by datatrove.

The settings are those of FineWeb (Penedo et al. 2024, arXiv 2406.17557): sequences of 5 words, 112
hashes in 14 groups of 8. Two documents are near if one group is the same, which for a Jaccard
similarity s has the probability 1 - (1 - s^8)^14: 0.56 at 0.7, 0.92 at 0.8, 1.00 at 0.9.
"""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig
from jaxtyping import Int32, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clp_jax.data.deduplicate.found import DropFound, write_found
from clp_jax.data.documents import ReadDocuments
from clp_jax.data.stages import Deduplication, Place, Stage
from clp_jax.data.words import Words
from clp_jax.errors import UserError

_CONFIG = MinhashConfig(
    n_grams=5,
    num_buckets=14,
    hashes_per_bucket=8,
    hash_config=HashConfig(precision=64, hash_fc="sha1"),
)
_SHINGLES = 4096
_OTHER_FILES = 256
_TASK = np.uint64(1 << 32)
_PAIRS = 1 << 22  # read at once


def drop_near(place: Place) -> Deduplication:
    """Drop documents that are near to an earlier one, or near to one that is, and so on."""
    signatures, pairs = place.scratch / "signatures", place.scratch / "pairs"
    found = place.scratch / "found"
    return Deduplication(
        [
            Stage(
                "near-sign", [ReadDocuments(place.documents), SignWords(signatures)], place.tasks
            ),
            Stage(
                "near-pair",
                [PairSignatures(signatures, pairs, place.tasks)],
                _CONFIG.num_buckets,
            ),
            Stage("near-cluster", [FindNear(pairs, found)], 1),
        ],
        DropFound("near", found, 1, place.samples),
    )


class SignWords(MinhashDedupSignature):
    """datatrove's signatures in bounded memory, however long a document is."""

    def __init__(self, folder: Path):
        super().__init__(str(folder), _CONFIG, language=Words())

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        """The minimum of the signatures of a few thousand shingles at a time."""
        starts = range(0, len(shingles), _SHINGLES)
        parts = [super(SignWords, self).get_signature(shingles[i : i + _SHINGLES]) for i in starts]
        return np.min(np.array(parts, np.uint64), axis=0).tolist()


class PairSignatures(MinhashDedupBuckets):
    """datatrove's search for equal groups of hashes, which reads the files of all tasks at once."""

    def __init__(self, signatures: Path, pairs: Path, tasks: int):
        super().__init__(str(signatures), str(pairs), config=_CONFIG)
        self.tasks = tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Pair the documents of one group."""
        _open_files(self.tasks)
        super().run(data, rank, world_size)


class FindNear(PipelineStep):
    """Find all but the first document of each cluster of near ones.

    datatrove's clusters are Python dictionaries, of 300 bytes a document that is in a pair; these
    are arrays, of some 30.

    Args:
        pairs: What `PairSignatures` has written.
        found: Folder for the documents to drop.
    """

    type = "DEDUPLICATE"
    name = "find near"

    def __init__(self, pairs: Path, found: Path):
        super().__init__()
        self.pairs = pairs
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Cluster the pairs, and find the first of each cluster."""
        with self.track_time("task"):
            documents = np.empty(0, np.uint64)
            for pairs in self._read():
                documents = np.union1d(documents, pairs)
            first = np.arange(len(documents), dtype=np.int32)  # of the cluster of each
            for pairs in self._read():
                first = _join(first, first[np.searchsorted(documents, pairs)])
            copies = documents[first != np.arange(len(documents), dtype=np.int32)]
            task, index = (part.astype(np.uint32) for part in np.divmod(copies, _TASK))
            write_found(self.found, rank, task, index)

    def _read(self) -> Iterator[UInt64[np.ndarray, "pairs 2"]]:
        """The pairs, some at a time; a document is one number, that orders it in the corpus."""
        for file in sorted(self.pairs.glob("*.dups")):
            if file.stat().st_size:
                pairs = np.memmap(file, "<u4", "r").reshape(-1, 2, 2)
                for start in range(0, len(pairs), _PAIRS):
                    part = pairs[start : start + _PAIRS].astype(np.uint64)
                    yield part[..., 0] * _TASK + part[..., 1]


def _join(
    first: Int32[np.ndarray, "documents"], pairs: Int32[np.ndarray, "pairs 2"]
) -> Int32[np.ndarray, "documents"]:
    """The first document of the cluster of each, with clusters joined by pairs of first ones."""
    edges = coo_array((np.ones(len(pairs), np.int8), (*pairs.T,)), shape=(len(first),) * 2)
    count, cluster = connected_components(edges, directed=False)
    smallest = np.empty(count, np.int32)
    smallest[cluster[::-1]] = np.arange(len(first), dtype=np.int32)[::-1]
    return smallest[cluster[first]]


def _open_files(count: int) -> None:
    """Let this process open so many files, and a few besides."""
    wanted = count + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UserError(
            f"Near duplicates of {count} tasks need {wanted} open files, but this machine allows "
            f"{hard}: let its administrator raise the hard limit of `ulimit -n`."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
