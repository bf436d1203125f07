"""Write beside, then rename: nothing half-written is ever left where a result belongs."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from clp_jax.errors import UserError


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that becomes ``folder`` when the block succeeds.

    Raises:
        UserError: ``folder`` exists and is not an empty folder.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists already: remove it or choose another output folder.")
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
    """Yield a path beside ``file`` that replaces ``file`` when the block succeeds."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.parent / f".{file.stem}.{uuid.uuid4().hex[:8]}.partial{file.suffix}"
    try:
        yield scratch
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def is_address(place: str | Path) -> bool:
    """Whether it is an address, such as ``gs://bucket/run``, and not a path on a disk."""
    return "://" in str(place)


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
