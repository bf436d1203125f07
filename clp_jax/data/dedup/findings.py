"""The filters that act on what earlier stages have found."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from clp_jax.data.dedup.fingerprints import read_between
from clp_jax.data.samples import Samples
from clp_jax.data.seals import CheckSeals


class FindingsFilter(BaseFilter):
    """A filter of a task's documents that first reads the findings about them.

    Args:
        found: Folder with the findings.
        files: Number of tasks that wrote to it.
        samples: Folder for a few of the dropped documents or parts.
    """

    def __init__(self, found: Path, files: int, samples: Path):
        super().__init__(exclusion_writer=Samples(samples, self.name))
        self.found = found
        self.files = files

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the documents that are kept."""
        self._rank = rank
        CheckSeals(self.files, self.found).run(rank=rank, world_size=world_size)
        self.load(rank)
        yield from super().run(data, rank, world_size)

    @abstractmethod
    def load(self, rank: int) -> None:
        """Read the findings about the documents of a task."""

    def read(self, key: str, low: int, high: int) -> np.ndarray:
        """Read the findings with ``low <= key < high``."""
        return read_between(self.found, self.files, key, low, high)

    def sample(self, document: Document, text: str, reason: str) -> None:
        """Offer a dropped part of a document to the samples."""
        part = Document(text, document.id, metadata={"filter_reason": reason})
        self.exclusion_writer.write(part, self._rank)
