"""The documents between two stages of `clp-jax prepare`: a folder with one file a task."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.files import new_file

_LEVEL = 1


def documents_file(folder: Path, rank: int) -> Path:
    """The JSON lines that task ``rank`` writes: text, id and metadata of each document."""
    return folder / f"{rank:05d}.jsonl.zst"


@contextmanager
def new_documents(folder: Path, rank: int) -> Iterator[Callable[[Document], None]]:
    """Write the file of a task, whole or not at all; gives what adds a document to it."""
    with (
        new_file(documents_file(folder, rank)) as scratch,
        zstandard.open(scratch, "wb", cctx=zstandard.ZstdCompressor(_LEVEL)) as file,
    ):

        def add(document: Document) -> None:
            record = {"text": document.text, "id": document.id, "metadata": document.metadata}
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

        yield add


class WriteDocuments(PipelineStep):
    """Write the documents of a task, whole or not at all, and pass them on."""

    type = "WRITE"
    name = "documents"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Write and yield each document."""
        with new_documents(self.folder, rank) as add:
            for document in data:
                add(document)
                self.update_doc_stats(document)
                yield document


class ReadDocuments(PipelineStep):
    """Read the documents that the task of the same rank has written."""

    type = "READ"
    name = "documents"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield each document, in the order in which they were written."""
        file = documents_file(self.folder, rank)
        with zstandard.open(file, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                document = Document(**json.loads(line))
                self.update_doc_stats(document)
                yield document
