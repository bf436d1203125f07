"""File formats: how a file is split into records, which are parsed only on demand.

A raw record is split off but not parsed: bytes, or a row of parquet. Its number is that of its
(first) line, its row or its position in the file, counted from one.
"""

import ast
import codecs
import io
import json
import re
import shutil
import string
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clp_jax.data.io.compression import CODECS

READ_ERRORS = (OSError, pa.ArrowException, tarfile.TarError)
"""Raised where a file cannot be read at all, or no further."""
LONGEST = 128 << 20
"""Maximum bytes of a record; a longer one is a whole corpus or a decompression bomb."""

_CHUNK = 1 << 16
_ROWS = 256
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 1000
_HEADER_BYTES = 1 << 20
# Where one dictionary ends and the next begins, with url as its first key. A JSON string would
# escape the quote, and so would a Python string, unless it has a ' and no ".
_JSON_SEAM = re.compile(rb'\}\s{0,2}(?=\{"url")')
_PYTHON_SEAM = re.compile(rb"\}\s{0,2}(?=\{'url')")
_SEAM_BYTES = len(b"}\r\n{'url'")
_BLANK = string.whitespace.encode() + codecs.BOM_UTF8

Numbered = Iterator[tuple[int, Any]]
ChooseColumns = Callable[[Sequence[str]], list[str]]


class RecordError(Exception):
    """A record that cannot be used.

    Args:
        reason: What is wrong with it, in a few words.
        line: Number of the record's lines before the fault.
    """

    def __init__(self, reason: str, line: int = 0):
        super().__init__(reason)
        self.line = line


class Text(NamedTuple):
    """A record that consists only of text."""

    text: str


@dataclass(frozen=True)
class Row:
    """A row of a parquet file, not yet converted."""

    batch: pa.RecordBatch
    index: int


class Format(NamedTuple):
    """How a file is split into raw records, and how a raw record is parsed.

    Attributes:
        unit: What a record's number counts: lines, rows or records.
        split: Yields the number of each raw record of a stream and the record; its second argument
            selects among the columns of a file that has columns. Raises one of `READ_ERRORS` where
            the file is broken.
        parse: Returns the fields of a raw record, or a `Text`. Raises `RecordError`.
    """

    unit: str
    split: Callable[[io.BufferedReader, ChooseColumns], Numbered]
    parse: Callable[[Any], Any]


def suffix(file: str | Path) -> str:
    """The suffix that names the format: ``.jsonl`` for ``a.jsonl.gz``."""
    path = Path(file)
    return Path(path.stem).suffix if path.suffix in CODECS else path.suffix


def _too_long(what: str) -> OSError:
    return OSError(
        f"{what} has more than {LONGEST >> 20} MiB: write one document per line, or split it"
    )


def _split_whole(stream: io.BufferedReader, _: ChooseColumns) -> Numbered:
    whole = stream.read(LONGEST + 1)
    if len(whole) > LONGEST:
        raise _too_long("its only document")
    yield 1, whole


def _lines(stream: io.BufferedReader) -> Iterator[bytes]:
    while line := stream.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise _too_long("a line")
        yield line


def _split_lines(stream: io.BufferedReader, _: ChooseColumns) -> Numbered:
    for number, line in enumerate(_lines(stream), 1):
        if line.strip(_BLANK):
            yield number, line


def _split_json(stream: io.BufferedReader, choose: ChooseColumns) -> Numbered:
    """The items of a JSON list that fills the file, or else its lines."""
    start = stream.peek(_CHUNK)[:_CHUNK].lstrip(_BLANK)
    return _split_list(stream) if start.startswith(b"[") else _split_lines(stream, choose)


def _split_list(stream: io.BufferedReader) -> Numbered:
    decoder, utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")()
    text, number, size = "", 0, _CHUNK
    separators = "[" + string.whitespace
    while True:
        rest = text.lstrip(separators)
        if rest.startswith("]"):
            return
        try:
            _, end = decoder.raw_decode(rest)
            whole = rest[end : end + 1] != ""  # at the end of the chunk, a number may continue
        except ValueError:
            whole = False
        except RecursionError:
            raise OSError(f"record {number + 1} of its list is nested too deeply") from None
        if whole:
            number += 1
            yield number, rest[:end].encode("utf-8", "surrogatepass")
            text, separators, size = rest[end:], "," + string.whitespace, _CHUNK
            continue
        if len(rest) > LONGEST:
            raise _too_long(f"record {number + 1} of its list")
        # Double the size each time: a long record is tried a few times, not once for each chunk.
        if not (more := stream.read(size)):
            raise OSError(f"its list breaks off or is not JSON at record {number + 1}")
        try:
            text, size = rest + utf8.decode(more), 2 * size
        except UnicodeDecodeError as error:
            raise OSError(f"not UTF-8 ({error.reason}) after record {number} of its list") from None


def _split_blank_lines(stream: io.BufferedReader, _: ChooseColumns) -> Numbered:
    lines: list[bytes] = []
    number = size = 0
    for number, line in enumerate(_lines(stream), 1):
        if line.strip(_BLANK):
            lines.append(line)
            size += len(line)
            if size > LONGEST:
                raise _too_long("a document")
        elif lines:
            size = 0
            yield number - len(lines), b"".join(lines).rstrip()
            lines = []
    if lines:
        yield number - len(lines) + 1, b"".join(lines).rstrip()


def _split_dictionaries(stream: io.BufferedReader, _: ChooseColumns) -> Numbered:
    return enumerate(_dictionaries(stream), 1)


def _split_archive(stream: io.BufferedReader, _: ChooseColumns) -> Numbered:
    return enumerate(_dictionaries_of_members(stream), 1)


class _Member(tarfile.TarInfo):
    """An archive member that limits the size of headers, which tarfile reads whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.REGULAR_TYPES and self.size > _HEADER_BYTES:
            raise tarfile.ReadError("a header of its archive is too long")
        return super()._proc_member(archive)  # type: ignore[misc]


def _dictionaries_of_members(stream: io.BufferedReader) -> Iterator[bytearray]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:
        for member in archive:
            if member.isfile():
                yield from _dictionaries(archive.extractfile(member))
    while stream.read(_CHUNK):  # read to the end: only there does a truncated file raise
        pass


def _dictionaries(stream: Any) -> Iterator[bytearray]:
    """Split at the seams, and search every byte only once, however long a record is."""
    seam = _JSON_SEAM if stream.peek(2).startswith(b'{"') else _PYTHON_SEAM
    buffer, searched = bytearray(), 0
    while chunk := stream.read(_CHUNK):
        buffer += chunk
        start = 0
        for end, following in [match.span() for match in seam.finditer(buffer, searched)]:
            yield buffer[start : end + 1]
            start = following
        del buffer[:start]
        searched = max(0, len(buffer) - _SEAM_BYTES)
        if len(buffer) > LONGEST:
            raise _too_long("a record")
    if buffer.strip():
        yield buffer


def _split_rows(stream: io.BufferedReader, choose: ChooseColumns) -> Numbered:
    with tempfile.TemporaryFile() as copy:
        if not stream.seekable():  # parquet is read from its end
            shutil.copyfileobj(stream, copy)
        table = pq.ParquetFile(stream if stream.seekable() else copy)
        columns = choose(table.schema_arrow.names)
        _refuse_bombs(table.metadata, columns)
        number = 0
        for batch in table.iter_batches(batch_size=_ROWS, columns=columns):
            for index in range(batch.num_rows):
                number += 1
                yield number, Row(batch, index)


def _refuse_bombs(metadata: pq.FileMetaData, columns: Sequence[str]) -> None:
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
            named = column.path_in_schema.partition(".")[0] in columns
            if named and unpacked > max(_BOMB_BYTES, _BOMB_RATIO * packed):
                raise OSError(f"its column {column.path_in_schema} unpacks to {unpacked:,} bytes")


def _decode(raw: bytes | bytearray) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start)
        raise RecordError(f"not UTF-8 ({error.reason})", line) from None


def _parse_text(raw: bytes) -> Text:
    return Text(_decode(raw))


def _parse_json(raw: bytes | bytearray) -> Any:
    try:
        return json.loads(_decode(raw))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON ({error})") from None


def _parse_dictionary(raw: bytes | bytearray) -> Any:
    text = _decode(raw).strip()
    if text.startswith('{"'):
        return _parse_json(raw)
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise RecordError(f"neither JSON nor a Python dictionary ({error})") from None


def _parse_row(row: Row) -> Mapping[str, Any]:
    try:
        return {
            name: column[row.index].as_py()
            for name, column in zip(row.batch.schema.names, row.batch.columns, strict=True)
        }
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 ({error.reason})") from None


WHOLE = Format("line", _split_whole, _parse_text)
"""The file is one text."""
LINES = Format("line", _split_lines, _parse_json)
"""One JSON object per line; blank lines are skipped."""
LIST = Format("record", _split_json, _parse_json)
"""One list of JSON objects, or one JSON object per line."""
BLANK_LINES = Format("line", _split_blank_lines, _parse_text)
"""Texts separated by blank lines."""
ROWS = Format("row", _split_rows, _parse_row)
"""Rows of parquet."""
DICTIONARIES = Format("record", _split_dictionaries, _parse_dictionary)
"""JSON objects or Python dictionaries whose first key is url, on lines of their own or not."""
ARCHIVE = Format("record", _split_archive, _parse_dictionary)
"""A tar archive of files with such dictionaries."""
