"""Files of numpy records, one a task, sorted by one of their fields and read range by range.

Sorted by their hash, the records of all tasks are divided by hash ranges: each task of the next
stage reads one range of all files, so that its memory is bounded whatever the corpus.
"""

from bisect import bisect_left
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt64

from clp_jax.files import new_file

_TASKS_A_BUCKET = 4


def buckets(tasks: int) -> int:
    """Into how many ranges of hashes the records of ``tasks`` tasks are divided."""
    return tasks // _TASKS_A_BUCKET + 1


def hash_range(bucket: int, count: int) -> tuple[int, int]:
    """First 64-bit hash of a bucket out of ``count``, and the first one after it."""
    return (bucket << 64) // count, (bucket + 1 << 64) // count


def write_sorted(folder: Path, rank: int, records: np.ndarray, key: str) -> None:
    """Write the records of a task, sorted by the field ``key``; equal keys keep their order."""
    with new_file(_file(folder, rank)) as scratch:
        np.save(scratch, records[np.argsort(records[key], kind="stable")])


def read_between(folder: Path, tasks: int, key: str, low: int, high: int) -> np.ndarray:
    """Read the records with ``low <= key < high``, those of the first task first.

    Args:
        folder: Where ``tasks`` tasks have written their records, sorted by ``key``.
        tasks: Number of files.
        key: The field.
        low: First value.
        high: The value after the last.

    Returns:
        Records of all files; each file's part is in its order.
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
    """Which values are among others that are sorted already."""
    return np.searchsorted(ascending, values, "right") > np.searchsorted(ascending, values, "left")


def _file(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.npy"
