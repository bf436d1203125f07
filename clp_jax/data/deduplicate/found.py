"""Documents that were found to be a copy, and the filter that drops them."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from jaxtyping import UInt32

from clp_jax.data.deduplicate.records import read_between, write_sorted
from clp_jax.data.samples import Samples

_FOUND = np.dtype([("task", "<u4"), ("index", "<u4")])


def write_found(
    folder: Path,
    rank: int,
    task: UInt32[np.ndarray, " documents"],
    index: UInt32[np.ndarray, " documents"],
) -> None:
    """Write which documents are to be dropped: the task of each, and its place in the task."""
    found = np.empty(len(task), _FOUND)
    found["task"], found["index"] = task, index
    write_sorted(folder, rank, found, "task")


class DropFound(BaseFilter):
    """Drop the documents that were found.

    Args:
        name: What the filter and its samples are called.
        folder: Where `write_found` was called.
        files: By how many tasks.
        samples: Folder for a few of the dropped documents.
    """

    def __init__(self, name: str, folder: Path, files: int, samples: Path):
        self.name = name
        super().__init__(exclusion_writer=Samples(samples, name))
        self.folder = folder
        self.files = files

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the other documents."""
        found = read_between(self.folder, self.files, "task", rank, rank + 1)
        self._found = frozenset(found["index"].tolist())
        self._indices = count()
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the next document is to stay."""
        return (False, "copy") if next(self._indices) in self._found else True
