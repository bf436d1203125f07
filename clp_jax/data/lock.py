"""One run at a time in a folder, for as long as it or one of its processes lives."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from clp_jax.errors import UserError

HEARTBEAT = 0.5
"""Seconds after which a process has seen that the one that started it is gone."""

_PATIENCE = 5.0
_RUN, _WORKERS = "lock", "workers.lock"


@contextmanager
def only_run(work: Path) -> Iterator[None]:
    """Hold the folder ``work``, which is made if it is not there, alone.

    Workers of a run that was killed may keep it for a moment.

    Raises:
        UserError: another run holds it.
    """
    deadline = time.monotonic() + _PATIENCE
    with _held(work, _RUN, deadline):
        with _held(work, _WORKERS, deadline):
            pass
        yield


def share(work: Path) -> None:
    """Keep the next run out of ``work`` for as long as this process, a worker of it, lives."""
    fcntl.flock(os.open(work / _WORKERS, os.O_RDWR | os.O_CREAT), fcntl.LOCK_SH)


@contextmanager
def _held(work: Path, name: str, deadline: float) -> Iterator[None]:
    while True:
        work.mkdir(parents=True, exist_ok=True)
        with (work / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"Another run is at work in {work.parent}: wait for its end or choose "
                        "another output folder."
                    ) from None
                time.sleep(HEARTBEAT / 5)
                continue
            if _is_there(file, work / name):
                yield
                return


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether the lock is still that of the folder: a run that ends removes it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
