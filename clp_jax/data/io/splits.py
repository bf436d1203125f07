"""Divides the sources into splits, and groups the splits into tasks of about equal size."""

import glob
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from clp_jax.data.config import SourceSection
from clp_jax.data.io.compression import CODECS
from clp_jax.data.io.formats import WHOLE, suffix
from clp_jax.data.io.hub import HUB, check_address, hub_shards
from clp_jax.data.io.sources import SOURCES
from clp_jax.errors import UserError
from clp_jax.files import local_path, public_name

_TASK_BYTES = 8 << 20
_MOST_TASKS = 1024
_MOST_PARTS = 16
_EXPANSION = 3
_BLOCK = 256


@dataclass(frozen=True)
class Split:
    """A part of the sources that one task reads.

    Attributes:
        kind: Kind of the source, a key of `clp_jax.data.io.sources.SOURCES`.
        input: A file, or a hub data set (``hf://...``).
        text_field: Field that holds the text; None: the default of the kind.
        name: Number of the source and name of the input in it; document ids start with it.
        part: Index of this part of the input.
        parts: Number of parts of the input.
    """

    kind: str
    input: str
    text_field: str | None
    name: str
    part: int = 0
    parts: int = 1

    @property
    def is_hub(self) -> bool:
        """Whether the input is a hub data set, whose parts are shards."""
        return self.input.startswith(HUB)

    def owns(self, number: int) -> bool:
        """Whether record ``number``, counted from one, belongs to this part of a file."""
        return (number - 1) // _BLOCK % self.parts == self.part


def whole_splits(sources: Sequence[SourceSection]) -> list[Split]:
    """One split per input: sources in order, the files of a glob by name, each file once.

    Raises:
        UserError: there is no source, or a source matches no file, is a folder, or has a file
            whose suffix does not fit its kind.
    """
    if not sources:
        raise UserError("There are no sources: name the text to read.")
    splits: dict[str, Split] = {}
    for number, source in enumerate(sources):
        for split in _splits_of(source, number):
            key = split.input if split.is_hub else str(Path(split.input).resolve())
            splits.setdefault(key, split)
    return list(splits.values())


def text_splits(inputs: Sequence[str], text_field: str | None = None) -> list[Split]:
    """One split for each input of `clp_jax.data.io.readers.read_documents`.

    Raises:
        UserError: as in `whole_splits`.
    """
    return whole_splits([SourceSection(input=item, text_field=text_field) for item in inputs])


def plan_tasks(sources: Sequence[SourceSection], limit: int | None) -> list[list[Split]]:
    """Divide the sources into tasks by the names and sizes of the files alone.

    A task gets about 8 MiB of text, or more where there would be over 1,024 tasks; a compressed
    byte counts as three. Small files are grouped in order. A large file is divided into at most 16
    parts, in blocks of 256 records in turn: each task reads the whole file but parses only its own
    records. A shard of a hub data set counts as 8 MiB.

    Args:
        sources: The sources to read.
        limit: Maximum number of documents; if set, one task reads everything in order.

    Returns:
        The splits of each task.

    Raises:
        UserError: as in `whole_splits`, or a hub data set is missing or not accessible.
    """
    splits = whole_splits(sources)
    shards = {split: hub_shards(split.input) for split in splits if split.is_hub}
    if limit is not None:
        return [splits]
    sizes = [
        shards[split] * _TASK_BYTES if split.is_hub else _text_bytes(split.input)
        for split in splits
    ]
    task_bytes = max(_TASK_BYTES, math.ceil(sum(sizes) / _MOST_TASKS))
    tasks: list[list[Split]] = []
    filled = task_bytes
    for split, size in zip(splits, sizes, strict=True):
        parts = shards.get(split) or _parts(split, size // task_bytes)
        for part in range(parts):
            if filled >= task_bytes:
                tasks.append([])
                filled = 0
            tasks[-1].append(replace(split, part=part, parts=parts))
            filled += size // parts
    return tasks


def _text_bytes(file: str) -> int:
    path = Path(file)
    packed = path.suffix in CODECS or path.suffix == ".parquet"
    return path.stat().st_size * (_EXPANSION if packed else 1)


def _parts(split: Split, wanted: int) -> int:
    whole = SOURCES[split.kind].formats[suffix(split.input)] is WHOLE
    return 1 if whole else max(1, min(_MOST_PARTS, wanted))


def _splits_of(source: SourceSection, number: int) -> Iterator[Split]:
    """One split for each file of a source, or for its hub data set."""
    item = source.input
    known = SOURCES[source.kind].formats
    if item.startswith(HUB):
        check_address(item)
        name = public_name(item.removeprefix(HUB))
        yield Split(source.kind, item, source.text_field, f"{number}/{name}")
        return
    pattern = local_path(item).expanduser()
    if pattern.is_dir():
        raise UserError(f"{item} is a folder: name its files, for example {pattern}/*.jsonl.")
    folder = pattern.parent if pattern.exists() else _above_wildcards(pattern)
    escaped = glob.escape(str(pattern)) if pattern.exists() else str(pattern)
    files = [file for file in sorted(set(_matches(escaped))) if not Path(file).is_dir()]
    if not files:
        raise UserError(f"{item} matches no file.")
    for file in files:
        if not Path(file).is_file():
            raise UserError(
                f"{file} is a pipe, a device or a broken link: name a regular file instead."
            )
        if suffix(file) not in known:
            raise UserError(
                f"{file} has an unknown suffix: files of the kind {source.kind} end in "
                f"{', '.join(known)}, optionally followed by {' or '.join(CODECS)}."
            )
        name = Path(file).relative_to(folder).as_posix()
        yield Split(source.kind, file, source.text_field, f"{number}/{name}")


def _matches(pattern: str) -> Iterator[str]:
    """The matches of a glob; ``**`` follows links to folders but enters no folder twice."""
    pattern = f"{pattern}/*" if Path(pattern).name == "**" else pattern
    above, found, below = pattern.partition("**/")
    if not found or above[-1:] not in ("", "/"):
        yield from glob.glob(pattern)  # noqa: PTH207
        return
    entered: set[Path] = set()
    for start in sorted(glob.glob(above)) if above else ["."]:  # noqa: PTH207
        for folder, inner, _ in os.walk(start, followlinks=True):
            real = Path(folder).resolve()
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if real in entered:
                inner.clear()
                continue
            entered.add(real)
            yield from _matches(str(Path(glob.escape(folder)) / below))


def _above_wildcards(pattern: Path) -> Path:
    """The folder that contains all files of a glob."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))
