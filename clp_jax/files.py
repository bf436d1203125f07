"""Write beside, then rename: nothing half-written is ever left where a result belongs."""

import json
import math
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from clp_jax.errors import UserError

MAX_JSON_BYTES = 100 << 20
_MAX_JSON_DEPTH = 64
_KINDS: Mapping[type, str] = {dict: "object", list: "list"}

ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")
"""How an address begins; a `Path` of one has lost the second slash."""


def is_address(place: str | Path) -> bool:
    """Whether it is an address, such as ``gs://bucket/run``, and not a path on a disk."""
    return ADDRESS.match(str(place)) is not None


def local_path(place: str | Path) -> Path:
    """The path of a place on a disk.

    Raises:
        UserError: it is an address, which would become a folder called ``gs:``.
    """
    if is_address(place):
        raise UserError(
            f"{place} is an address, but this must be a path on a disk: only the folder of a "
            "training run may be in a bucket."
        )
    return Path(place)


def new_path(folder: str | Path) -> Path:
    """The path of a folder that can be made: nothing is there, or an empty folder.

    Raises:
        UserError: something is there, or it is an address.
    """
    folder = local_path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists already: remove it or choose another output folder.")
    return folder


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that becomes ``folder`` when the block succeeds.

    Raises:
        UserError: see `new_path`.
    """
    folder = new_path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
    scratch.mkdir()
    try:
        yield scratch
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


@contextmanager
def new_file(file: str | Path) -> Iterator[Path]:
    """Yield a path beside ``file`` that replaces ``file`` when the block succeeds.

    Raises:
        UserError: it is an address.
    """
    file = local_path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.parent / f".{file.stem}.{uuid.uuid4().hex[:8]}.partial{file.suffix}"
    try:
        yield scratch
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def cache_folder() -> Path:
    """The user's folder for what can be made or fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clp_jax"


def public_name(place: str | Path) -> str:
    """A hub id or relative path as it is; of a folder on this machine only the last part."""
    return Path(place).name if Path(place).is_absolute() else str(place)


def write_json(file: str | Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, whole or not at all; NaN and infinities as null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    with new_file(file) as scratch:
        scratch.write_text(text + "\n", "utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def regular_file(file: str | Path) -> Path:
    """The path of a file that can be read to its end: no folder, pipe or device.

    Raises:
        UserError: it is missing, is something else, or cannot be looked at.
    """
    file = Path(file)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{file} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({_reason(error)}).") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{file} is not a regular file: name one.")
    return file


def read_json(file: str | Path, kind: type = dict) -> Any:
    """Read a JSON file, our own or a stranger's.

    Args:
        file: Path or address.
        kind: What it must hold: ``dict`` or ``list``.

    Raises:
        UserError: the file is missing, no regular file, too large, or not JSON of that kind (see
            `parse_json`).
    """
    if not is_address(file):
        regular_file(file)
    try:
        with epath.Path(file).open("rb") as stream:
            text = stream.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{file} is missing.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({_reason(error)}).") from None
    if len(text) > MAX_JSON_BYTES:
        raise UserError(f"{file} is larger than {MAX_JSON_BYTES >> 20} MiB: it is no JSON of ours.")
    return parse_json(text, str(file), kind)


def parse_json(text: str | bytes, name: str, kind: type = dict) -> Any:
    """JSON that can be worked with: of the right kind, not too deep, every number finite.

    Args:
        text: The JSON; bytes are UTF-8.
        name: Its file, and line if it has many, for the error.
        kind: What it must hold: ``dict`` or ``list``.

    Raises:
        UserError: it is not JSON of that kind, is nested more than 64 deep, says a key twice with
            different values, or holds NaN, an infinity, an integer beyond 128 bits or a broken
            character.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_object)
        _check(value)
    except RecursionError:
        raise UserError(f"{name} is nested too deep for JSON.") from None
    except ValueError as error:
        raise UserError(f"{name} is not valid JSON ({error}).") from None
    if not isinstance(value, kind):
        belongs, found = _KINDS[kind], _KINDS.get(type(value), "single value")
        raise UserError(f"{name} must hold a JSON {belongs}, not a {found}.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    for key, other in pairs if len(value) < len(pairs) else ():
        if value[key] != other:
            raise ValueError(f"{key!r} is there twice")
    return value


def _check(value: Any) -> None:
    """Level by level, so that no depth exhausts the stack."""
    level = [value]
    for _ in range(_MAX_JSON_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str):
                item.encode()
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number is NaN or infinite")
            elif isinstance(item, int) and item.bit_length() > 128:
                raise ValueError("an integer has more than 128 bits")
        if not inner:
            return
        level = inner
    raise RecursionError


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
