"""Documents that are nearly equal to another one: MinHash, by datatrove.

The settings are those of FineWeb (Penedo et al. 2024, arXiv 2406.17557): sequences of 5 words, 112
hashes in 14 groups of 8. Two documents are near if one group is the same, which for a Jaccard
similarity s has the probability 1 - (1 - s^8)^14: 0.56 at 0.7, 0.92 at 0.8, 1.00 at 0.9.
"""

import resource
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig

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


def drop_near(place: Place) -> Deduplication:
    """Drop documents that are near to an earlier one, or near to one that is, and so on."""
    signatures, pairs = place.scratch / "signatures", place.scratch / "pairs"
    clusters, found = place.scratch / "clusters", place.scratch / "found"
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
            Stage("near-cluster", [FindNear(pairs, clusters, place.tasks, found)], 1),
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


class FindNear(MinhashDedupCluster):
    """datatrove's clusters, of each of which the first document stays, not any.

    Args:
        pairs: What `MinhashDedupBuckets` has written.
        clusters: Folder for the clusters.
        tasks: Number of tasks that have signed documents.
        found: Folder for the documents to drop.
    """

    def __init__(self, pairs: Path, clusters: Path, tasks: int, found: Path):
        super().__init__(str(pairs), str(clusters), _CONFIG, save_cluster_id=True)
        self.clusters = clusters
        self.tasks = tasks
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Cluster the pairs, and find all but the first document of each cluster."""
        _open_files(2 * self.tasks)
        super().run(data, rank, world_size)
        parts = [np.empty((0, 3), np.uint32)]
        for task in range(self.tasks):
            file = self.clusters / f"{task:06d}.clusters"
            if file.exists():
                index_cluster = np.fromfile(file, "<u4").reshape(-1, 2)
                parts.append(np.insert(index_cluster, 0, task, axis=1))
        members = np.concatenate(parts)
        _, first = np.unique(members[:, 2], return_index=True)
        copies = np.delete(members, first, axis=0)
        write_found(self.found, rank, copies[:, 0], copies[:, 1])


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
