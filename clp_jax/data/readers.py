"""Documents from text, JSON-lines and parquet files and from data sets of the Hugging Face hub."""

import glob
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from clp_jax.errors import UserError

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_FORMATS = (".txt", ".jsonl", ".parquet")
_HUB = re.compile(r"hf://(?P<name>[^:@]+)(?::(?P<config>[^@]+))?(?:@(?P<split>.+))?")
_PARQUET_ROWS = 1024


def read_documents(inputs: Sequence[str], text_field: str = "text") -> Iterator[str]:
    """Read the documents of files and data sets one by one, always in the same order.

    A document is a whole ``.txt`` file, a line of a ``.jsonl`` file, a row of a ``.parquet`` file;
    each of them may also be compressed (``.gz``, ``.zst``). No more than a document, or a thousand
    rows, is held in memory. Blank documents are left out.

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
    sources = dict.fromkeys(source for item in inputs for source in _sources(item))
    return _with_text(list(sources), text_field, ", ".join(map(str, inputs)))


def _sources(item: str) -> list[str]:
    """The hub data set or the files that ``item`` stands for."""
    if item.startswith("hf://"):
        if not _HUB.fullmatch(item):
            raise UserError(f"{item} is not understood: write hf://NAME[:CONFIG][@SPLIT].")
        return [item]
    path = Path(item).expanduser()
    if path.is_dir():
        raise UserError(f"{item} is a folder: name its files, for example {path}/*.jsonl.")
    pattern = glob.escape(str(path)) if path.exists() else str(path)
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [file for file in found if not Path(file).is_dir()]
    if not files:
        raise UserError(f"{item} matches no file.")
    for file in files:
        if _format(Path(file)) not in _FORMATS:
            raise UserError(
                f"{file} has an unknown suffix: text is read from {', '.join(_FORMATS)}, "
                f"each also with {' or '.join(_CODECS)} at the end."
            )
    return files


def _format(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix in _CODECS else file.suffix


def _with_text(sources: list[str], text_field: str, inputs: str) -> Iterator[str]:
    empty = True
    for source in sources:
        for text in _read(source, text_field):
            if text.strip():
                empty = False
                yield text
    if empty:
        raise UserError(f"{inputs}: no document holds any text.")


def _read(source: str, text_field: str) -> Iterator[str]:
    if source.startswith("hf://"):
        return _read_hub(source, text_field)
    file = Path(source)
    match _format(file):
        case ".txt":
            return _read_text(file)
        case ".jsonl":
            return _read_json_lines(file, text_field)
        case _:
            return _read_parquet(file, text_field)


def _read_text(file: Path) -> Iterator[str]:
    with _open(file) as stream:
        data = stream.read()
    try:
        yield data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not UTF-8 ({error.reason}).") from None


def _read_json_lines(file: Path, text_field: str) -> Iterator[str]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            where = f"{file}, line {number}"
            if line.isspace():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not UTF-8 ({error.reason}).") from None
            except ValueError as error:
                raise UserError(f"{where}: not JSON ({error}).") from None
            if not isinstance(record, dict):
                raise UserError(f"{where}: not a JSON object with the key {text_field}.")
            yield _text(record, text_field, where)


def _read_parquet(file: Path, text_field: str) -> Iterator[str]:
    row = 0
    with _open(file) as stream, tempfile.TemporaryFile() as copy:
        if file.suffix in _CODECS:  # parquet is read from its end: a stream will not do
            shutil.copyfileobj(stream, copy)
        table = pq.ParquetFile(copy if file.suffix in _CODECS else file)
        columns = table.schema_arrow.names
        if text_field not in columns:
            raise UserError(_missing(str(file), text_field, columns))
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[text_field]):
            for value in batch[text_field]:
                row += 1
                where = f"{file}, row {row}"
                try:
                    record = {text_field: value.as_py()}
                except UnicodeDecodeError as error:
                    raise UserError(f"{where}: not UTF-8 ({error.reason}).") from None
                yield _text(record, text_field, where)


def _read_hub(address: str, text_field: str) -> Iterator[str]:
    from datasets import load_dataset

    match = _HUB.fullmatch(address)
    assert match
    name, config, split = match.groups()
    try:
        rows = load_dataset(name, config, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield _text(row, text_field, f"{address}, row {number}")
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        raise UserError(f"{address} cannot be read ({' '.join(str(error).split())}).") from error


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """The decompressed bytes of ``file``; whatever is wrong with them is told as a UserError.

    Arrow, unlike the Python modules, also notices that a zstd file ends too early.
    """
    try:
        source = pa.input_stream(str(file), compression=_CODECS.get(file.suffix))
        with io.BufferedReader(source) as stream:
            yield stream
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())}).") from error


def _text(record: Mapping[str, Any], text_field: str, where: str) -> str:
    if text_field not in record:
        raise UserError(_missing(where, text_field, record))
    text = record[text_field]
    if not isinstance(text, str):
        raise UserError(f"{where}: {text_field} is {type(text).__name__}, not a string.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {text_field} holds half of a surrogate pair.") from None
    return text


def _missing(where: str, text_field: str, present: Sequence[str] | Mapping[str, Any]) -> str:
    return (
        f"{where}: no field {text_field}, only {', '.join(present) or 'nothing'}: "
        "name the one that holds the text."
    )
