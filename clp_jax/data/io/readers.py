"""Documents from files and from data sets of the Hugging Face hub."""

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
from clp_jax.data.io.formats import DAMAGE, Fault, suffix
from clp_jax.data.io.hub import hub_rows
from clp_jax.data.io.sources import SOURCES, Layout, MissingText, needed_columns, read_record
from clp_jax.data.io.splits import Piece, text_pieces
from clp_jax.errors import UserError
from clp_jax.files import write_json
from clp_jax.limits import Inputs, Name

_SAMPLES = 5
_SAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Broken:
    """A record that cannot be used, or a file that cannot be read any further.

    Attributes:
        input: The file or data set.
        place: Where in it: a line, a row, ...; empty where that is not known.
        fault: What is wrong; it names the input where there is no place.
        start: Its first characters, as far as they are known.
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

    A document is a whole ``.txt`` file, a line of a ``.jsonl`` or ``.json`` file, a row of a
    ``.parquet`` file; each of them may also be compressed (``.gz``, ``.zst``). No more than a
    document, or a few hundred rows, is held in memory. Blank documents are left out.

    Args:
        inputs: Files, globs (``**`` for any depth of folders) and hub data sets, written
            ``hf://NAME[:CONFIG][@SPLIT]`` (the split is ``train`` if it is left out). They are read
            in the order given, the files of a glob by name, and a file that is named twice once.
        text_field: Key or column that holds the text.

    Returns:
        The documents. The names of the files are checked before the first document is read.

    Raises:
        UserError: an input matches no file, is a folder or has an unknown suffix; a file is broken,
            is not UTF-8 or lacks ``text_field``; there is no text at all.
    """
    return _texts(text_pieces(inputs, text_field), ", ".join(inputs))


def _texts(pieces: Sequence[Piece], inputs: str) -> Iterator[str]:
    empty = True
    for piece in pieces:
        for document in read_piece(piece):
            if isinstance(document, Broken):
                raise UserError(f"{document}.")
            if document.text.strip():
                empty = False
                yield document.text
    if empty:
        raise NoText(f"{inputs}: no document holds any text.")


class Read(PipelineStep):
    """Read the documents of a task, blank ones left out, and count those of each source.

    Args:
        tasks: The pieces of each task (see `clp_jax.data.io.splits.plan_tasks`).
        max_broken: Broken records of a piece that are skipped; with one more the run ends.
        limit: The most documents of a task; None: all.
        samples_folder: ``broken/RANK.json`` is written in it: some of the broken records.
    """

    type = "READ"
    name = "sources"

    def __init__(
        self,
        tasks: Sequence[Sequence[Piece]],
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
            UserError: there are too many broken records, or the first of a file has no text field.
        """
        broken: list[Broken] = []
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
            write_json(self.samples_folder / "broken" / f"{rank:05d}.json", samples)

    def _documents(self, rank: int, broken: list[Broken]) -> Iterator[Document]:
        for piece in self.tasks[rank]:
            before = len(broken)
            for found in read_piece(piece):
                if isinstance(found, Broken):
                    self.stat_update("broken")
                    broken.append(found)
                    if len(broken) - before > self.max_broken:
                        raise UserError(
                            f"{found}, and only {self.max_broken} broken records of a file "
                            "are skipped: mend it, or raise corpus.max_broken."
                        )
                elif found.text.strip():
                    yield found
                else:
                    self.stat_update("empty")


def read_piece(piece: Piece) -> Iterator[Document | Broken]:
    """Read a piece of the sources, record by record.

    The id of a document is the name of the piece and the number of the record.

    Raises:
        UserError: the first record of a file has no text field, the file cannot be opened, or a hub
            data set cannot be read.
    """
    layout = SOURCES[piece.kind]
    if piece.text_field is not None:
        layout = layout._replace(text=(piece.text_field,))
    return _read_hub(piece, layout) if piece.is_hub else _read_file(piece, layout)


def _read_hub(piece: Piece, layout: Layout) -> Iterator[Document | Broken]:
    for number, row in enumerate(hub_rows(piece.input, piece.part, piece.parts), 1):
        try:
            yield _document(piece, layout, f"{piece.part}/{number}", row)
        except Fault as fault:
            broken = Broken(piece.input, f"row {number}", str(fault))
            if number == 1 and isinstance(fault, MissingText):
                raise NoText(f"{broken}.") from None
            yield broken


def _read_file(piece: Piece, layout: Layout) -> Iterator[Document | Broken]:
    form = layout.formats[suffix(piece.input)]
    first, number = piece.part == 0, 0
    try:
        with open_file(piece.input) as stream:
            for number, raw in form.split(stream, partial(needed_columns, layout)):
                if not piece.owns(number):
                    continue
                try:
                    yield _document(piece, layout, str(number), form.parse(raw))
                except Fault as fault:
                    place = f"{form.unit} {number + fault.line}"
                    broken = Broken(piece.input, place, str(fault), _start(raw))
                    if first and isinstance(fault, MissingText):
                        raise NoText(f"{broken}.") from None
                    yield broken
                first = False
    except MissingText as fault:
        raise NoText(f"{piece.input}: {fault}.") from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        if number == 0 or (isinstance(error, OSError) and error.errno is not None):
            raise UserError(f"{piece.input} cannot be read ({reason}).") from error
        place = f"{form.unit} {number}"
        yield Broken(piece.input, "", f"{piece.input} cannot be read beyond {place} ({reason})")


def _document(piece: Piece, layout: Layout, number: str, record: Any) -> Document:
    text, metadata = read_record(layout, record)
    return Document(text, f"{piece.name}/{number}", metadata={"source": piece.kind, **metadata})


def _start(raw: Any) -> str:
    """The first characters of a raw record that is text."""
    if not isinstance(raw, bytes | bytearray):
        return ""
    return raw[: 4 * _SAMPLE_CHARACTERS].decode(errors="replace")[:_SAMPLE_CHARACTERS]
