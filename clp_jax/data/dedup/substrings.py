"""Substring deduplication: passages that occur earlier, anywhere in the corpus, byte for byte.

The result is that of Lee et al. 2022 (arXiv 2107.06499): of all equal passages of a given length,
each except the first is cut. Their suffix array takes eight bytes per byte of text; the hashes used
here take bounded memory.

Equal passages have equal fingerprints (`winnow`), so fingerprints are compared first. Only where
one occurs twice are the passages themselves hashed, from a copy of the text on disk, and compared.
Equal hashes count as equal passages: with 64 bits, the probability of a wrong cut is 1e-7 for each
two megabytes compared.

The cuts depend on the text alone. Each cut byte lies in a passage with a whole copy at an earlier
place. If bytes of that copy are cut too, they have an earlier copy in turn, and so on: some copy of
each byte stays. But a passage that spans the seam of two others, both of which occurred before, is
kept only in parts.

A place in the corpus is one number: 2^40 times the task, plus the byte offset in the concatenated
documents of the task.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from jaxtyping import UInt64

from clp_jax.data.dedup.findings import FindingsFilter
from clp_jax.data.dedup.fingerprints import (
    among,
    buckets,
    hash_passages,
    hash_range,
    read_between,
    winnow,
    write_sorted,
)
from clp_jax.data.seals import CheckSeals, seal
from clp_jax.data.stages import Deduplication, ReadDocuments, Stage, Workspace
from clp_jax.files import new_file

CUT = np.dtype([("start", "<u8"), ("end", "<u8")])
"""The place of the first byte of a cut, and of the first byte after it."""

_TASK_BITS = 40
_LONGEST_WORD = 64  # bytes
_SHORTEST_REST = 100  # bytes
_BLANK = re.compile(rb"\s")
_LAST_BLANK = re.compile(rb"\s\S*\Z")


def first_place(task: int) -> int:
    """The place of the first byte of a task."""
    return task << _TASK_BITS


def task_and_byte(
    places: UInt64[np.ndarray, " n"],
) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"]]:
    """The task of each place, and the byte offset in its text."""
    return np.divmod(places, np.uint64(1 << _TASK_BITS))


def union(cuts: np.ndarray) -> np.ndarray:
    """The same cuts, sorted and without overlaps; cuts that only touch are not merged."""
    cuts = cuts[np.argsort(cuts["start"])]
    ends = np.maximum.accumulate(cuts["end"])
    new = cuts["start"][1:] >= ends[:-1]
    union = cuts[np.append(True, new)[: len(cuts)]]
    union["end"] = ends[np.append(new, True)[: len(cuts)]]
    return union


class CutPassages(FindingsFilter):
    """Cut the passages that were found, and drop documents that keep too little text."""

    name = "substrings"

    def load(self, rank: int) -> None:
        """Read the cuts in the text of the task."""
        self._place = first_place(rank)
        self._cuts = union(self.read("start", self._place, first_place(rank + 1)))

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Cut the passages; return whether enough text is left."""
        text = doc.text.encode()
        place, self._place = self._place, self._place + len(text)
        first, last = np.searchsorted(self._cuts["start"], [place, self._place])
        found = ((int(start) - place, int(end) - place) for start, end in self._cuts[first:last])
        cuts = [cut for cut in (_inwards(text, *cut) for cut in found) if cut[0] < cut[1]]
        if not cuts:
            return True
        edges = [0, *chain.from_iterable(cuts), len(text)]
        parts = (text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True))
        rest = b"\n".join(part for part in parts if len(part) >= _SHORTEST_REST)
        self.stat_update("passages", value=len(cuts), unit="doc")
        if not rest:
            return False, "only passages seen before"
        doc.text = rest.decode()
        for start, end in cuts:
            self.sample(doc, text[start:end].decode(), "passage seen before")
        return True


def _inwards(text: bytes, start: int, end: int) -> tuple[int, int]:
    """The part of a cut that consists of whole words, or at least of whole characters."""
    if start > 0 and not _BLANK.search(text, start - 1, start + 1):
        blank = _BLANK.search(text, start, min(start + _LONGEST_WORD, end))
        start = blank.start() if blank else start
    if end < len(text) and not _BLANK.search(text, end - 1, end + 1):
        blank = _LAST_BLANK.search(text, max(start, end - _LONGEST_WORD), end)
        end = blank.start() if blank else end
    while start < end and _within_character(text, start):
        start += 1
    while start < end and _within_character(text, end):
        end -= 1
    return start, end


def _within_character(text: bytes, place: int) -> bool:
    return place < len(text) and text[place] & 0b1100_0000 == 0b1000_0000


_GRAM = 50
_BUDGET = 1 << 21  # bytes of text compared together

_PRINT = np.dtype([("hash", "<u8"), ("start", "<u8"), ("count", "<u4")])


def cut_passages(length: int, workspace: Workspace) -> Deduplication:
    """Cut each passage of at least ``length`` bytes that also occurs at an earlier place.

    The ends of a cut move inwards to the next white space. Each part left before, between and after
    the cuts becomes a separate line, or is dropped if it has fewer than 100 bytes.
    """
    texts, prints = workspace.scratch / "texts", workspace.scratch / "prints"
    found = workspace.scratch / "found"
    count = buckets(workspace.tasks)
    return Deduplication(
        [
            Stage(
                "substrings-sign",
                [ReadDocuments(workspace.documents), SignPassages(length, texts, prints)],
                workspace.tasks,
            ),
            Stage(
                "substrings-find",
                [
                    CheckSeals(workspace.tasks, texts, prints),
                    FindPassages(length, texts, prints, workspace.tasks, found),
                ],
                count,
            ),
        ],
        CutPassages(found, count, workspace.samples),
    )


class SignPassages(PipelineStep):
    """Write the text of a task as one file, and the fingerprints of its passages."""

    type = "DEDUPLICATE"
    name = "sign passages"

    def __init__(self, length: int, texts: Path, prints: Path):
        super().__init__()
        self.length = length
        self.texts = texts
        self.prints = prints

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Sign the documents of a task."""
        with self.track_time("task"), new_file(_text_file(self.texts, rank)) as scratch:
            prints = [np.empty(0, _PRINT)]
            with scratch.open("wb") as file:
                for document in data:
                    text = document.text.encode()
                    prints.extend(self._prints(text, first_place(rank) + file.tell()))
                    file.write(text)
            write_sorted(self.prints, rank, np.concatenate(prints), "hash")
        seal(self.texts, rank, _text_file(self.texts, rank))

    def _prints(self, text: bytes, place: int) -> Iterator[np.ndarray]:
        gram = min(_GRAM, (self.length + 1) // 2)
        for hashes, starts, counts in winnow(np.frombuffer(text, np.uint8), self.length, gram):
            prints = np.empty(len(hashes), _PRINT)
            prints["hash"], prints["start"], prints["count"] = hashes, place + starts, counts
            yield prints


class FindPassages(PipelineStep):
    """Find all but the first of equal passages.

    Args:
        length: Bytes of a passage.
        texts: Folder with the text of each task.
        prints: Folder with the fingerprints of each task.
        tasks: Number of tasks.
        found: Folder for the cuts, records of type `CUT`.
    """

    type = "DEDUPLICATE"
    name = "find passages"

    def __init__(self, length: int, texts: Path, prints: Path, tasks: int, found: Path):
        super().__init__()
        self.length = length
        self.texts = texts
        self.prints = prints
        self.tasks = tasks
        self.found = found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Find the repeated passages of one bucket of fingerprints."""
        with self.track_time("task"):
            bounds = hash_range(rank, world_size)
            prints = read_between(self.prints, self.tasks, "hash", *bounds)
            prints = prints[np.argsort(prints["hash"], kind="stable")]
            same = prints["hash"][1:] == prints["hash"][:-1]
            prints = prints[(np.append(False, same) | np.append(same, False))[: len(prints)]]
            ends = np.flatnonzero(np.append(prints["hash"][1:] != prints["hash"][:-1], True)) + 1
            cuts = [np.empty(0, CUT)]
            for group in self._divide(prints, ends[: len(prints)]):
                cuts.extend(self._cuts(group))
            write_sorted(self.found, rank, np.concatenate(cuts), "start")

    def _divide(self, prints: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
        """The fingerprints in groups of about the budget; groups end only at ``ends``."""
        sizes = np.cumsum(prints["count"] + (self.length - 1))[ends - 1] // _BUDGET
        return np.split(prints, ends[:-1][sizes[1:] != sizes[:-1]]) if len(ends) else []

    def _cuts(self, prints: np.ndarray) -> Iterator[np.ndarray]:
        """Compare the passages of the fingerprints with one another, in corpus order."""
        prints = prints[np.argsort(prints["start"])]
        seen = np.empty(0, np.uint64)
        for part in self._divide(prints, np.arange(len(prints)) + 1):
            hashes, starts = self._passages(part)
            distinct, first = np.unique(hashes, return_index=True)
            new = ~among(distinct, seen)
            later = np.ones(len(hashes), bool)
            later[first[new]] = False
            seen = np.sort(np.append(seen, distinct[new]))
            cuts = np.empty(later.sum(), CUT)
            cuts["start"] = starts[later]
            cuts["end"] = cuts["start"] + np.uint64(self.length)
            yield union(cuts)

    def _passages(self, prints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The hash and place of each passage that the fingerprints stand for."""
        counts = prints["count"].astype(np.int64)
        sizes = counts + self.length - 1
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        text = np.frombuffer(b"".join(self._texts(prints["start"], sizes)), np.uint8)
        hashes = hash_passages(text, self.length)
        chosen = np.repeat(np.cumsum(sizes) - sizes, counts) + within
        return hashes[chosen], np.repeat(prints["start"], counts) + within.astype(np.uint64)

    def _texts(self, starts: np.ndarray, sizes: np.ndarray) -> Iterator[bytes]:
        tasks, offsets = task_and_byte(starts)
        for task in np.unique(tasks).tolist():
            mine = tasks == task
            with _text_file(self.texts, task).open("rb", buffering=0) as file:
                for offset, size in zip(offsets[mine], sizes[mine], strict=True):
                    file.seek(int(offset))
                    yield file.read(int(size))


def _text_file(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.txt"
