"""Cutting passages out of documents so that what stays can be read.

A place in the corpus is one number: 2^40 times the task, plus the byte in the text of the task,
which is that of its documents one after the other.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from jaxtyping import UInt64

from clp_jax.data.deduplicate.records import read_between
from clp_jax.data.samples import Samples

CUT = np.dtype([("start", "<u8"), ("end", "<u8")])
"""The place of the first byte that is cut, and of the first after it that is not."""

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
    """The task of each place, and the byte in its text."""
    return np.divmod(places, np.uint64(1 << _TASK_BITS))


def union(cuts: np.ndarray) -> np.ndarray:
    """The same bytes as cuts in order that do not overlap; those that only touch stay two."""
    cuts = cuts[np.argsort(cuts["start"])]
    ends = np.maximum.accumulate(cuts["end"])
    new = cuts["start"][1:] >= ends[:-1]
    union = cuts[np.append(True, new)[: len(cuts)]]
    union["end"] = ends[np.append(new, True)[: len(cuts)]]
    return union


class CutPassages(BaseFilter):
    """Cut what was found, and drop the documents of which too little stays."""

    name = "substrings"

    def __init__(self, found: Path, files: int, samples: Path):
        super().__init__(exclusion_writer=Samples(samples, self.name))
        self.found = found
        self.files = files

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents of which something stays."""
        self._rank = rank
        places = first_place(rank), first_place(rank + 1)
        self._cuts = union(read_between(self.found, self.files, "start", *places))
        self._place = first_place(rank)
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Take the passages out; whether anything stays."""
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
            sample = {"filter_reason": "passage seen before"}
            passage = Document(text[start:end].decode(), doc.id, metadata=sample)
            self.exclusion_writer.write(passage, self._rank)
        return True


def _inwards(text: bytes, start: int, end: int) -> tuple[int, int]:
    """The part of a cut that holds whole words, or at least whole characters."""
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
