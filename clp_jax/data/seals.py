"""Checksums of the files that one stage of `clp-jax prepare` leaves for a later one.

A disk or a copy can change a file in between, and most of its readers would not notice.
"""

import os
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from clp_jax.checkpoint.checksums import file_checksum
from clp_jax.errors import UserError
from clp_jax.files import read_json, write_json


def files_of_tasks(folder: Path, suffix: str) -> list[Path]:
    """The files that tasks have written, in their order, without what killed writers left."""
    return sorted(folder.glob(f"[0-9]*{suffix}"))


def seal(folder: Path, rank: int, *files: Path) -> None:
    """Record the sizes and checksums of the finished files of a task.

    Args:
        folder: The folder to which the stage writes; the record is next to it, since some readers
            take every file in it.
        rank: The task.
        files: Its files, in the folder or elsewhere.
    """
    names = (os.path.relpath(file, folder) for file in files)
    write_json(_record(folder, rank), {name: _sum(folder / name) for name in names})


def check_seal(folder: Path, rank: int) -> None:
    """Make sure that the files of a task are as they were when they were sealed.

    Raises:
        UserError: one of them, or the record itself, has changed or is missing.
    """
    record = _record(folder, rank)
    try:
        sums = read_json(record)
    except UserError:
        raise _damaged(record) from None
    for name, noted in sums.items():
        file = folder / name
        if not file.is_file() or _sum(file) != noted:
            raise _damaged(file)


class CheckSeals(PipelineStep):
    """Check what the tasks of an earlier stage wrote; the tasks of this stage share the files.

    So each file is read once more, however many tasks read parts of it. If one file is damaged or
    one record lost, the stage does not succeed.

    Args:
        tasks: Number of tasks of the earlier stage, each of which has sealed its files.
        folders: The folders, as in `seal`.
    """

    type = "CHECK"
    name = "seals"

    def __init__(self, tasks: int, *folders: Path):
        super().__init__()
        self.tasks = tasks
        self.folders = folders

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Check the share of a task.

        Raises:
            UserError: a file has changed or is missing.
        """
        for folder in self.folders:
            for task in range(rank, self.tasks, world_size):
                check_seal(folder, task)


def _record(folder: Path, rank: int) -> Path:
    return folder.with_name(f"{folder.name}.sums") / f"{rank:05d}.sums"


def _sum(file: Path) -> list[Any]:
    return [file.stat().st_size, file_checksum(file)]


def _damaged(file: Path) -> UserError:
    if not file.exists():
        return UserError(f"{file} is missing: remove the output folder to start again.")
    return UserError(
        f"{file} has changed since it was written: look at the disk, and remove the output folder "
        "to start again."
    )
