"""Hashes of the passages of a text, and sorted files of hashes that are read range by range.

Each task writes its records sorted by hash. Each task of the next stage reads one hash range of all
files, so its memory is bounded for a corpus of any size.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64

from clp_jax.data.seals import seal
from clp_jax.files import new_file

_BLOCK = 1 << 16  # passages hashed together: the arrays stay in the cache of a core
_RANDOM = np.random.Generator(np.random.PCG64(2003))
_LETTER = _RANDOM.integers(1 << 64, size=256, dtype=np.uint64)
_BASE = int(_RANDOM.integers(1 << 64, dtype=np.uint64)) | 1
_PLACE = np.uint64((1 << 24) - 1)


def hash_passages(
    data: UInt8[np.ndarray, "bytes"], length: int
) -> UInt64[np.ndarray, " bytes-{length}+1"]:
    """Hash each passage of ``length`` bytes: a polynomial of random values of its bytes mod 2^64.

    Args:
        data: At least ``length`` bytes.
        length: Bytes of a passage.

    Returns:
        The hash of the passage that starts at each byte with ``length`` bytes from there on.
    """
    return np.concatenate([_hash(block, length) for _, block in _blocks(data, length)])


def winnow(
    data: UInt8[np.ndarray, "bytes"], length: int, gram: int
) -> Iterator[tuple[UInt64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]]:
    """Winnowing (Schleimer, Wilkerson, Aiken 2003): one fingerprint for neighbouring passages.

    The fingerprint of a passage of ``length`` bytes is the smallest hash of its sequences of
    ``gram`` bytes, the rightmost one in a tie. Equal passages have equal fingerprints; neighbours
    mostly share one, so there are about 2 per length - gram + 2 bytes. If one fingerprint stands
    for two equal passages of a block, it occurs twice.

    Args:
        data: Any number of bytes.
        length: Bytes of a passage.
        gram: Bytes of a sequence, at most ``length``.

    Yields:
        For each block of the data: the fingerprints, the start of the first passage that each
        stands for, and how many consecutive passages it stands for.
    """
    for offset, block in _blocks(data, length):
        every = _hash(block, gram)
        ranked = every & ~_PLACE | _PLACE - np.arange(len(every), dtype=np.uint64)
        chosen = _window_minima(ranked, length - gram + 1)
        starts = np.append(0, np.flatnonzero(chosen[1:] != chosen[:-1]) + 1)
        hashes = every[_PLACE - (chosen[starts] & _PLACE)]
        new = np.append(True, hashes[1:] != hashes[:-1])
        kept = new | np.append(False, new[:-1])  # two equal ones suffice to show a repetition
        counts = np.diff(starts[kept], append=len(chosen))
        yield mix(hashes[kept]), starts[kept] + offset, counts


def _blocks(
    data: UInt8[np.ndarray, "bytes"], length: int
) -> Iterator[tuple[int, UInt8[np.ndarray, " _"]]]:
    """Blocks of the bytes that together hold each passage of ``length`` bytes once."""
    for offset in range(0, len(data) - length + 1, _BLOCK):
        yield offset, data[offset : offset + _BLOCK + length - 1]


def _hash(data: UInt8[np.ndarray, "bytes"], length: int) -> UInt64[np.ndarray, " bytes-{length}+1"]:
    powers, inverses = _powers(1 << len(data).bit_length())
    sums = np.cumsum(_LETTER[data] * powers[: len(data)])
    sums[length:] -= sums[:-length].copy()
    return sums[length - 1 :] * inverses[: len(data) - length + 1]


@cache
def _powers(count: int) -> tuple[UInt64[np.ndarray, " count"], UInt64[np.ndarray, " count"]]:
    """Powers of the base and of its inverse mod 2^64."""
    bases = np.full((2, count), [[_BASE], [pow(_BASE, -1, 1 << 64)]], np.uint64)
    bases[:, 0] = 1
    powers, inverses = np.multiply.accumulate(bases, axis=1)
    return powers, inverses


def _window_minima(
    values: UInt64[np.ndarray, " values"], width: int
) -> UInt64[np.ndarray, " values-{width}+1"]:
    """The minimum of each window, from the minima of windows of 1, 2, 4... values."""
    size = 1
    while 2 * size <= width:
        values = np.minimum(values[:-size], values[size:])
        size *= 2
    rest = width - size
    return np.minimum(values[: len(values) - rest], values[rest:])


def mix(hashes: UInt64[np.ndarray, " prints"]) -> UInt64[np.ndarray, " prints"]:
    """Spread minima evenly over all 64-bit numbers (the finaliser of SplitMix64)."""
    hashes = (hashes ^ hashes >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ hashes >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return hashes ^ hashes >> np.uint64(31)


_TASKS_A_BUCKET = 4


def buckets(tasks: int) -> int:
    """The number of hash ranges that the records of ``tasks`` tasks are divided into."""
    return tasks // _TASKS_A_BUCKET + 1


def hash_range(bucket: int, count: int) -> tuple[int, int]:
    """The first 64-bit hash of one of ``count`` buckets, and the first one after it."""
    return (bucket << 64) // count, (bucket + 1 << 64) // count


def write_sorted(folder: Path, rank: int, records: np.ndarray, key: str) -> None:
    """Write the records of a task, sorted by the field ``key``; equal keys keep their order."""
    with new_file(_file(folder, rank)) as scratch:
        np.save(scratch, records[np.argsort(records[key], kind="stable")])
    seal(folder, rank, _file(folder, rank))


def read_between(folder: Path, tasks: int, key: str, low: int, high: int) -> np.ndarray:
    """Read the records with ``low <= key < high``, in task order.

    Args:
        folder: Folder to which ``tasks`` tasks have written their records, sorted by ``key``.
        tasks: Number of files.
        key: The field.
        low: First value.
        high: The value after the last.

    Returns:
        The records of all files; those of each file keep their order.
    """
    parts = []
    for rank in range(tasks):
        records = np.load(_file(folder, rank), mmap_mode="r")
        start, end = (bisect_left(records, edge, key=itemgetter(key)) for edge in (low, high))
        parts.append(records[start:end])
    return np.concatenate(parts)


def among(
    values: UInt64[np.ndarray, " values"], ascending: UInt64[np.ndarray, "set"]
) -> Bool[np.ndarray, " values"]:
    """Which values are in the sorted array ``ascending``."""
    return np.searchsorted(ascending, values, "right") > np.searchsorted(ascending, values, "left")


def _file(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.npy"
