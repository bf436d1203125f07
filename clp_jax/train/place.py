"""Where a run folder is: on a disk, or in a bucket, with a copy of its small files on each host."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import jax
from etils import epath

from clp_jax.checkpoint.run_folder import CHECKPOINTS
from clp_jax.files import cache_folder, is_address, reaching

LEASE = "lease.json"
"""File of the run folder that says which process the run belongs to."""


class RunPlace:
    """The run folder ``out`` and the folder on this machine where it is read and written.

    On a disk both are the same, and all processes share it. In a bucket, such as
    ``gs://bucket/run``, only the checkpoints are written at once; all other files lie in a folder
    of each process and are copied there by the first one before each checkpoint: an object cannot
    be appended to, and what was written after the newest checkpoint is dropped at a resume anyway.

    Args:
        out: The run folder, ``train.out``.
    """

    def __init__(self, out: str):
        self.out = out
        self.remote = is_address(out)
        self.folder = Path(out)
        if self.remote:
            name = hashlib.sha256(out.encode()).hexdigest()[:16]
            process = str(jax.process_index())
            self.folder = cache_folder() / "runs" / name / process / out.rstrip("/").split("/")[-1]

    @property
    def root(self) -> Any:
        """The run folder itself, wherever it is."""
        return epath.Path(self.out)

    def fetch(self) -> None:
        """Make the folder here what the one in the bucket is.

        Raises:
            UserError: the bucket cannot be read.
        """
        if self.remote:
            shutil.rmtree(self.folder, ignore_errors=True)
            with reaching(self.out):
                _copy(self.root, self.folder)

    def publish(self) -> None:
        """Copy the files of the first process into the bucket.

        Raises:
            UserError: the bucket cannot be written.
        """
        if self.remote and jax.process_index() == 0:
            with reaching(self.out):
                _copy(self.folder, self.root)


def _copy(source: Any, target: Any) -> None:
    """Copy a folder but for checkpoints and lease; one that is not there is an empty one."""
    if not source.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.name in (CHECKPOINTS, LEASE):
            continue
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
