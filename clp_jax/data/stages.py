"""The stages of `clp-jax prepare`, and the documents passed from one to the next."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.data.seals import check_seal, seal
from clp_jax.files import new_file

_LEVEL = 1


def documents_file(folder: Path, rank: int) -> Path:
    """The JSON lines that task ``rank`` writes: text, id and metadata of each document."""
    return folder / f"{rank:05d}.jsonl.zst"


@contextmanager
def new_documents(folder: Path, rank: int) -> Iterator[Callable[[Document], None]]:
    """Write the file of a task atomically; yields the function that adds a document to it."""
    with (
        new_file(documents_file(folder, rank)) as scratch,
        zstandard.open(scratch, "wb", cctx=zstandard.ZstdCompressor(_LEVEL)) as file,
    ):

        def add(document: Document) -> None:
            record = {"text": document.text, "id": document.id, "metadata": document.metadata}
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

        yield add


class WriteDocuments(PipelineStep):
    """Write the documents of a task atomically, and pass them on."""

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
        seal(self.folder, rank, documents_file(self.folder, rank))


class ReadDocuments(PipelineStep):
    """Read the documents that the task of the same rank has written."""

    type = "READ"
    name = "documents"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield each document, in the order written.

        Raises:
            UserError: the file has changed since.
        """
        check_seal(self.folder, rank)
        file = documents_file(self.folder, rank)
        with zstandard.open(file, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                document = Document(**json.loads(line))
                self.update_doc_stats(document)
                yield document


def logs_of(work: Path, stage: str) -> Path:
    """Where datatrove records a stage's finished tasks, their counts and their logs."""
    return work / "logs" / stage


class Stage(NamedTuple):
    """The steps that each of ``tasks`` tasks sends its documents through."""

    name: str
    steps: Sequence[PipelineStep]
    tasks: int


@dataclass(frozen=True)
class Deduplication:
    """One way to find and remove duplicates.

    Attributes:
        stages: Read the documents of a folder, task by task, and find the duplicates.
        filter: Removes them from the same documents in the same order.
    """

    stages: Sequence[Stage]
    filter: PipelineStep


class Workspace(NamedTuple):
    """The folders of a deduplication.

    Attributes:
        documents: Folder with the documents, as `WriteDocuments` leaves it.
        tasks: Number of files in it.
        scratch: Folder for signatures and results; it is removed afterwards.
        samples: Folder for a few of the dropped documents.
    """

    documents: Path
    tasks: int
    scratch: Path
    samples: Path
