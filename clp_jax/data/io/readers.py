"""Reads documents from files and from data sets of the Hugging Face hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.arguments import checked
from clp_jax.data.io.compression import open_file
from clp_jax.data.io.formats import READ_ERRORS, RecordError, suffix
from clp_jax.data.io.hub import hub_rows
from clp_jax.data.io.sources import SOURCES, MissingText, RecordFormat, needed_columns, read_record
from clp_jax.data.io.splits import Split, text_splits
from clp_jax.data.samples import write_samples
from clp_jax.errors import UserError
from clp_jax.limits import Inputs, Name

_SAMPLES = 5
_SAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class BrokenRecord:
    """A record that cannot be used, or a file that cannot be read any further.

    Attributes:
        input: The file or data set.
        place: The line, row or record in it; empty if unknown.
        fault: What is wrong; without a place, it also names the input.
        start: The first characters of the record, if known.
    """

    input: str
    place: str
    fault: str
    start: str = ""

    def __str__(self) -> str:
        return f"{self.input}, {self.place}: {self.fault}" if self.place else self.fault


class NoText(UserError):
    """An input has no field with text."""


@checked
def read_documents(inputs: Inputs, text_field: Name = "text") -> Iterator[str]:
    """Read the documents of files and data sets one by one, always in the same order.

    A document is a whole ``.txt`` file, a line of a ``.jsonl`` or ``.json`` file, or a row of a
    ``.parquet`` file; each file may be compressed (``.gz``, ``.zst``). Memory holds one document,
    or a few hundred rows, at a time. Blank documents are skipped.

    Args:
        inputs: Files, globs (``**`` for any depth of folders) and hub data sets
            (``hf://NAME[:CONFIG][@SPLIT]``; the split defaults to ``train``). They are read in the
            given order, the files of a glob by name, and each file once.
        text_field: Key or column that holds the text.

    Returns:
        The documents. The file names are checked before the first document is read.

    Raises:
        UserError: an input matches no file, is a folder or has an unknown suffix; a file is broken,
            is not UTF-8 or lacks ``text_field``; there is no text at all.
    """
    return _texts(text_splits(inputs, text_field), ", ".join(inputs))


def _texts(splits: Sequence[Split], inputs: str) -> Iterator[str]:
    empty = True
    for split in splits:
        for text in read_texts(split):
            empty = False
            yield text
    if empty:
        raise NoText(f"{inputs}: no document holds any text.")


def read_texts(split: Split) -> Iterator[str]:
    """The text of each document of a split that is not blank.

    Raises:
        UserError: a record is broken, or as in `read_split`.
    """
    for document in read_split(split):
        if isinstance(document, BrokenRecord):
            raise UserError(f"{document}.")
        if document.text.strip():
            yield document.text


class Read(PipelineStep):
    """Read the documents of a task, skip blank ones, and count the documents of each source.

    Args:
        tasks: The splits of each task (see `clp_jax.data.io.splits.plan_tasks`).
        max_broken: Broken records to skip per split; one more ends the run.
        limit: Maximum number of documents per task; None: all.
        samples_folder: Folder in which ``broken/RANK.json`` is written: some broken records.
    """

    type = "READ"
    name = "sources"

    def __init__(
        self,
        tasks: Sequence[Sequence[Split]],
        max_broken: int,
        limit: int | None,
        samples_folder: Path,
    ):
        super().__init__()
        self.tasks = tasks
        self.max_broken = max_broken
        self.limit = limit
        self.samples_folder = samples_folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of task ``rank``, with ``source`` and ``tags`` in their metadata.

        Raises:
            UserError: there are too many broken records, or a file's first one has no text field.
        """
        broken: list[BrokenRecord] = []
        documents = islice(self._documents(rank, broken), self.limit)
        while True:
            with self.track_time():
                document = next(documents, None)
            if document is None:
                break
            self.update_doc_stats(document)
            source = document.id.partition("/")[0]
            self.stat_update(f"documents_{source}")
            self.stat_update(f"bytes_{source}", value=len(document.text.encode()))
            yield document
        if broken:
            samples = [
                {
                    "id": f"{Path(one.input).name} {one.place}",
                    "reason": one.fault,
                    "text": one.start,
                }
                for one in broken[:_SAMPLES]
            ]
            write_samples(self.samples_folder, "broken", rank, samples)

    def _documents(self, rank: int, broken: list[BrokenRecord]) -> Iterator[Document]:
        for split in self.tasks[rank]:
            before = len(broken)
            for found in read_split(split):
                if isinstance(found, BrokenRecord):
                    self.stat_update("broken")
                    broken.append(found)
                    if len(broken) - before > self.max_broken:
                        raise UserError(
                            f"{found}, and only {self.max_broken} broken records per file "
                            "are skipped: fix it, or raise corpus.max_broken."
                        )
                elif found.text.strip():
                    yield found
                else:
                    self.stat_update("empty")


def read_split(split: Split) -> Iterator[Document | BrokenRecord]:
    """Read a split of the sources, record by record.

    The id of a document consists of the name of the split and the number of the record.

    Raises:
        UserError: the first record of a file has no text field, the file cannot be opened, or a hub
            data set cannot be read.
    """
    layout = SOURCES[split.kind]
    if split.text_field is not None:
        layout = layout._replace(text=(split.text_field,))
    return _read_hub(split, layout) if split.is_hub else _read_file(split, layout)


def _read_hub(split: Split, layout: RecordFormat) -> Iterator[Document | BrokenRecord]:
    for number, row in enumerate(hub_rows(split.input, split.part, split.parts), 1):
        try:
            yield _document(split, layout, f"{split.part}/{number}", row)
        except RecordError as fault:
            broken = BrokenRecord(split.input, f"row {number}", str(fault))
            if number == 1 and isinstance(fault, MissingText):
                raise NoText(f"{broken}.") from None
            yield broken


def _read_file(split: Split, layout: RecordFormat) -> Iterator[Document | BrokenRecord]:
    form = layout.formats[suffix(split.input)]
    first, number = split.part == 0, 0
    try:
        with open_file(split.input) as stream:
            for number, raw in form.split(stream, partial(needed_columns, layout)):
                if not split.owns(number):
                    continue
                try:
                    yield _document(split, layout, str(number), form.parse(raw))
                except RecordError as fault:
                    place = f"{form.unit} {number + fault.line}"
                    broken = BrokenRecord(split.input, place, str(fault), _start(raw))
                    if first and isinstance(fault, MissingText):
                        raise NoText(f"{broken}.") from None
                    yield broken
                first = False
    except MissingText as fault:
        raise NoText(f"{split.input}: {fault}.") from None
    except READ_ERRORS as error:
        reason = " ".join(str(error).split())
        if number == 0 or (isinstance(error, OSError) and error.errno is not None):
            raise UserError(f"{split.input} cannot be read ({reason}).") from error
        place = f"{form.unit} {number}"
        yield BrokenRecord(
            split.input, "", f"{split.input} cannot be read beyond {place} ({reason})"
        )


def _document(split: Split, layout: RecordFormat, number: str, record: Any) -> Document:
    text, metadata = read_record(layout, record)
    return Document(text, f"{split.name}/{number}", metadata={"source": split.kind, **metadata})


def _start(raw: Any) -> str:
    """The first characters of a raw record that is text."""
    if not isinstance(raw, bytes | bytearray):
        return ""
    return raw[: 4 * _SAMPLE_CHARACTERS].decode(errors="replace")[:_SAMPLE_CHARACTERS]
