"""Write to a temporary path, then rename, so that no result is ever half-written."""

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from etils import epath

from clp_jax.errors import UserError

MAX_JSON_BYTES = 100 << 20
_MAX_JSON_DEPTH = 64
_KINDS: Mapping[type, str] = {dict: "object", list: "list"}

_scratch: set[Path] = set()
"""Paths that this process is writing, to be renamed or removed at the end."""

ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")
"""The beginning of an address; a `Path` of an address has lost the second slash."""


def is_address(place: str | Path) -> bool:
    """Whether a place is an address, such as ``gs://bucket/run``, rather than a path on a disk."""
    return ADDRESS.match(str(place)) is not None


@contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Within, report errors of access to a folder or a bucket in one sentence.

    Raises:
        UserError: it cannot be reached.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{place} needs gcsfs: install clp-jax[gcs].") from error
    except Exception as error:  # Each store has exceptions of its own.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"{place} cannot be reached ({reason}): check its name and your permissions."
        ) from error


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


def writable_path(place: str | Path) -> Path:
    """The path of a place on a disk where something can be created or replaced.

    Raises:
        UserError: it is an address, its name is too long, or the folder above is not writable.
    """
    place = local_path(place)
    try:
        _scratch_of(place).exists()  # Raises for a name that is too long.
        above = next(filter(Path.exists, place.absolute().parents), place)
    except OSError as error:
        raise UserError(f"{place} cannot be created ({_reason(error)}).") from None
    if not above.is_dir():
        raise UserError(f"{place} cannot be created: {above} is not a folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{place} cannot be created: {above} is not writable.")
    return place


def new_path(folder: str | Path) -> Path:
    """The path of a folder that can be created: it does not exist or is empty.

    Raises:
        UserError: it exists and is not an empty folder, or see `writable_path`.
    """
    folder = writable_path(folder)
    taken = not folder.is_dir() or folder.is_symlink() or any(folder.iterdir())
    if os.path.lexists(folder) and (taken or not folder.name):  # "." could not be renamed to.
        raise _exists(folder)
    return folder


def new_file_path(file: str | Path) -> Path:
    """The path of a file that can be written: it does not exist or is a file to replace.

    Raises:
        UserError: it is something else, such as a device or a link to one, or see
            `writable_path`.
    """
    file = writable_path(file)
    if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
        raise UserError(f"{file} exists and is not a regular file: choose a new name.")
    return file


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder next to ``folder`` that becomes ``folder`` when the block succeeds.

    Raises:
        UserError: see `new_path`; or the disk is full.
    """
    folder = new_path(folder)
    with _beside(folder, _scratch_of(folder)) as scratch:
        scratch.mkdir()
        yield scratch
        for path in (*scratch.rglob("*"), scratch):
            sync(path)
        try:
            if folder.exists():
                folder.rmdir()
            scratch.rename(folder)
            sync(folder.parent)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise _exists(folder) from None


@contextmanager
def new_file(file: str | Path) -> Iterator[Path]:
    """Yield a path next to ``file`` that replaces ``file`` when the block succeeds.

    Raises:
        UserError: see `new_file_path`; or the disk is full.
    """
    file = new_file_path(file)
    with _beside(file, _scratch_of(file)) as scratch:
        yield scratch
        sync(scratch)
        scratch.replace(file)
        sync(file.parent)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, which is removed after the block however it ends."""
    folder = Path(tempfile.mkdtemp(prefix="clp-jax-"))
    with _beside(folder, folder):
        yield folder


@contextmanager
def _beside(place: Path, scratch: Path) -> Iterator[Path]:
    """Yield ``scratch``, which becomes ``place``; whatever remains of it is removed afterwards.

    Raises:
        UserError: the disk is full.
    """
    _scratch.add(scratch)
    try:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{place} cannot be written: no space is left on the disk mounted at "
            f"{_mount_point(place)}. Make room there and try again."
        ) from error
    finally:
        _remove(scratch)
        _scratch.discard(scratch)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left in ``folder`` and below; no writer may be active."""
    for file in [*folder.rglob(".*.partial*")]:
        _remove(file)


def remove_scratch() -> None:
    """Remove the unfinished files of this process, which is about to exit."""
    for scratch in list(_scratch):
        _remove(scratch)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Not all file systems sync folders.
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exists(folder: Path) -> UserError:
    return UserError(f"{folder} exists already: remove it or choose another output folder.")


def _scratch_of(place: Path) -> Path:
    """The temporary path at which a folder or file is written before it is renamed."""
    return place.parent / f".{place.stem}.{uuid.uuid4().hex[:8]}.partial{place.suffix}"


def _mount_point(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_mount())


def cache_folder() -> Path:
    """The user's folder for files that can be recreated or downloaded again."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clp_jax"


def public_name(place: str | Path) -> str:
    """A hub id or relative path unchanged; only the last part of an absolute path."""
    return Path(place).name if Path(place).is_absolute() else str(place)


def write_text(file: str | Path, text: str) -> None:
    """Write text as UTF-8, completely or not at all."""
    with new_file(file) as scratch:
        scratch.write_text(text, "utf-8")


def write_json(file: str | Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically; NaN and infinities become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(file, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inside(folder: Path, file: str) -> Path:
    """The path of a file in an untrusted folder, which exists and does not lead out of it.

    Links into the hub's cache are accepted, since its own folders consist of them.

    Raises:
        UserError: it is missing, not a regular file, or outside the folder.
    """
    path = regular_file(folder / file)
    place = path.resolve()
    blob = place.parent.name == "blobs" and place.parent.parent.name.startswith("models--")
    if not (blob or place.is_relative_to(folder.resolve())):
        raise UserError(f"{path} leads out of its folder: put a copy of the file there.")
    return path


def regular_file(file: str | Path) -> Path:
    """The path of a regular file, which can be read to its end: not a folder, pipe or device.

    Raises:
        UserError: it is missing, not a regular file, or not accessible.
    """
    file = Path(file)
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{file} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({_reason(error)}).") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{file} is not a regular file: give one.")
    return file


def read_json(file: str | Path, kind: type = dict) -> Any:
    """Read a JSON file, trusted or not.

    Args:
        file: Path or address.
        kind: What it must hold: ``dict`` or ``list``.

    Raises:
        UserError: the file is missing, not a regular file, too large, or not JSON of that kind
            (see `parse_json`).
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
        raise UserError(
            f"{file} is larger than {MAX_JSON_BYTES >> 20} MiB, the limit for JSON: give another."
        )
    return parse_json(text, str(file), kind)


def parse_json(text: str | bytes, name: str, kind: type = dict) -> Any:
    """Parse JSON of the given kind, of limited depth and with finite numbers only.

    Args:
        text: The JSON; bytes are UTF-8.
        name: Its file, and line if it has many, for the error.
        kind: What it must hold: ``dict`` or ``list``.

    Raises:
        UserError: it is not JSON of that kind, is nested more than 64 levels deep, has a key twice
            with different values, or contains NaN, an infinity, an integer of more than 128 bits or
            an invalid character.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_object)
        _check(value)
    except RecursionError:
        raise UserError(f"{name} is nested more than {_MAX_JSON_DEPTH} levels deep.") from None
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
            raise ValueError(f"{key!r} appears twice")
    return value


def _check(value: Any) -> None:
    """Check a value level by level, so that no depth exhausts the stack."""
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
