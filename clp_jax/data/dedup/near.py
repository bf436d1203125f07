"""Near-duplicate documents, found by MinHash with datatrove's buckets and clusters.

The settings are those of FineWeb (Penedo et al. 2024, arXiv 2406.17557): sequences of 5 words, 112
hashes in 14 groups of 8. Two documents are near duplicates if they share a group, which for a
Jaccard similarity s has the probability 1 - (1 - s^8)^14: 0.56 at 0.7, 0.92 at 0.8, 1.00 at 0.9.

ASCII punctuation and white space separate words; case, accents, quotes and dashes do not count, and
all digits are the same. Words and sequences have 64-bit hashes, half of whose bits enter the 112
functions (Dietzfelbinger et al. 1997, multiplication modulo 2^32).
"""

import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import xxhash
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

from clp_jax.data.dedup.exact import DropFound, write_found
from clp_jax.data.dedup.fingerprints import mix
from clp_jax.data.seals import CheckSeals, seal
from clp_jax.data.stages import Deduplication, ReadDocuments, Stage, Workspace
from clp_jax.data.words import Words
from clp_jax.errors import UserError

_CONFIG = MinhashConfig(
    n_grams=5,
    num_buckets=14,
    hashes_per_bucket=8,
    hash_config=HashConfig(precision=64),
)
_SHINGLES = 1024  # hashed together: the arrays stay in the cache of a core
_FACTORS, _MASKS = np.random.RandomState(1).randint(0, 1 << 32, (2, 112, 1), np.uint32)
_FACTORS |= np.uint32(1)
_NO_LETTERS = re.compile("[\u0300-\u036f\u2000-\u206f«»]+")
_SIMPLE = bytes(
    byte if byte >= 128 or chr(byte).isalpha() else ord("0" if chr(byte).isdigit() else " ")
    for byte in range(256)
)
"""Maps UTF-8 bytes: all digits to 0, and all separators of words to a space."""
_OTHER_FILES = 256
_TASK = np.uint64(1 << 32)
_PAIRS = 1 << 22  # pairs read together


def drop_near(workspace: Workspace) -> Deduplication:
    """Drop all but the first document of each cluster linked by near duplicates."""
    signatures, pairs = workspace.scratch / "signatures", workspace.scratch / "pairs"
    found = workspace.scratch / "found"
    return Deduplication(
        [
            Stage(
                "near-sign",
                [ReadDocuments(workspace.documents), SignWords(signatures)],
                workspace.tasks,
            ),
            Stage(
                "near-pair",
                [
                    CheckSeals(workspace.tasks, signatures),
                    PairSignatures(signatures, pairs, workspace.tasks),
                ],
                _CONFIG.num_buckets,
            ),
            Stage(
                "near-cluster",
                [CheckSeals(_CONFIG.num_buckets, pairs), FindNear(pairs, found)],
                1,
            ),
        ],
        DropFound("near", found, 1, workspace.samples),
    )


class SignWords(MinhashDedupSignature):
    """datatrove's signature files, computed from hashes of words instead of strings."""

    def __init__(self, folder: Path):
        super().__init__(str(folder), _CONFIG, language=Words())
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Sign the documents of a task."""
        super().run(data, rank, world_size)
        seal(self.folder, rank, *self.folder.glob(f"*/{rank:05d}.minhash.sig"))

    def get_shingles(self, text: str) -> UInt64[np.ndarray, " sequences"]:
        """The hash of each sequence of five words."""
        simple = _NO_LETTERS.sub("", normalize("NFD", text.lower()))
        words = simple.encode().translate(_SIMPLE).split()
        hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, words), np.uint64, len(words))
        count = max(0, len(words) - _CONFIG.n_grams + 1)
        sequences = np.zeros(count, np.uint64)
        for i in range(_CONFIG.n_grams):
            sequences = sequences * np.uint64(0x9E3779B97F4A7C15) + hashes[i : i + count]
        return mix(sequences)

    def get_signature(self, shingles: UInt64[np.ndarray, " sequences"]) -> list[list[int]]:
        """The minimum of each of the 112 hashes, in groups, computed in bounded memory."""
        least = np.full(len(_FACTORS), (1 << 32) - 1, np.uint32)
        half = shingles.astype(np.uint32)
        for start in range(0, len(half), _SHINGLES):
            hashes = half[start : start + _SHINGLES] * _FACTORS ^ _MASKS
            np.minimum(least, hashes.min(axis=1), out=least)
        return least.reshape(_CONFIG.num_buckets, -1).tolist()


class PairSignatures(MinhashDedupBuckets):
    """datatrove's search for equal groups of hashes; it opens the files of all tasks together."""

    def __init__(self, signatures: Path, pairs: Path, tasks: int):
        super().__init__(str(signatures), str(pairs), config=_CONFIG)
        self.pairs = pairs
        self.tasks = tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Pair the documents of one group."""
        _open_files(self.tasks)
        super().run(data, rank, world_size)
        seal(self.pairs, rank, *self.pairs.glob(f"{rank:05d}_*.dups"))


class FindNear(PipelineStep):
    """Find all but the first document of each cluster of near duplicates.

    datatrove's clusters are Python dictionaries, with 300 bytes per document that is in a pair;
    these are arrays, with about 30.

    Args:
        pairs: Folder that `PairSignatures` wrote.
        found: Folder for the documents to drop.
    """

    type = "DEDUPLICATE"
    name = "find near"

    def __init__(self, pairs: Path, found: Path):
        super().__init__()
        self.pairs = pairs
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Cluster the pairs, and find all but the first document of each cluster."""
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
        """The pairs, in batches; a document is one number that gives its order in the corpus."""
        for file in sorted(self.pairs.glob("*.dups")):
            if file.stat().st_size:
                pairs = np.memmap(file, "<u4", "r").reshape(-1, 2, 2)
                for start in range(0, len(pairs), _PAIRS):
                    part = pairs[start : start + _PAIRS].astype(np.uint64)
                    yield part[..., 0] * _TASK + part[..., 1]


def _join(
    first: Int32[np.ndarray, " documents"], pairs: Int32[np.ndarray, "pairs 2"]
) -> Int32[np.ndarray, " documents"]:
    """The first document of each document's cluster, after joining the clusters in ``pairs``."""
    edges = coo_array((np.ones(len(pairs), np.int8), (*pairs.T,)), shape=(len(first),) * 2)
    count, cluster = connected_components(edges, directed=False)
    smallest = np.empty(count, np.int32)
    smallest[cluster[::-1]] = np.arange(len(first), dtype=np.int32)[::-1]
    return smallest[cluster[first]]


def _open_files(count: int) -> None:
    """Let this process open ``count`` files and a few more."""
    wanted = count + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UserError(
            f"Finding near duplicates in {count} tasks needs {wanted} open files, but this machine "
            f"allows {hard}: ask its administrator to raise the hard limit of `ulimit -n`."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
