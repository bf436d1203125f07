"""Write beside, then rename: nothing half-written is ever left where a result belongs."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from clp_jax.errors import UserError

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
    """Write ``value`` as indented UTF-8 JSON, whole or not at all."""
    with new_file(file) as scratch:
        scratch.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(file: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(epath.Path(file).read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid JSON ({error}).") from None
