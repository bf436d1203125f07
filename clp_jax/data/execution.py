"""Runs the stages of `clp-jax prepare` on this machine, on a Slurm cluster or on Ray.

A lock lets only one run work in a folder. The Slurm scripts are written here, because datatrove
inserts folder names unquoted, which a shell could execute: every outside value is quoted, for the
shell and for Slurm's ``#SBATCH`` lines.
"""

import contextlib
import copy
import errno
import fcntl
import io
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import IO, Any

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from tqdm import tqdm

from clp_jax.data.config import ExecutionSection
from clp_jax.data.stages import Stage, logs_of
from clp_jax.errors import UserError

HEARTBEAT = 0.5
"""Seconds between a worker's checks that its parent process is alive."""

_PATIENCE = 5.0
_RUN, _WORKERS = "lock", "workers.lock"


@contextmanager
def only_run(work: Path) -> Iterator[None]:
    """Lock the folder ``work`` for this run alone; create it if it is missing.

    Waits a few seconds for the workers of a killed run to exit.

    Raises:
        UserError: another run holds the lock.
    """
    deadline = time.monotonic() + _PATIENCE
    with _held(work, _RUN, deadline):
        with _held(work, _WORKERS, deadline):
            pass
        yield


def lock_for_worker(work: Path) -> None:
    """Keep other runs out of ``work`` for as long as this worker process lives."""
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
                        f"Another run is using {work.parent}: wait until it ends or choose "
                        "another output folder."
                    ) from None
                time.sleep(HEARTBEAT / 5)
                continue
            if _is_there(file, work / name):
                yield
                return


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether the locked file is still in the folder; a run that ends removes it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def submit(stages: Sequence[Stage], work: Path, section: ExecutionSection) -> None:
    """Submit the stages to Slurm, each to start when the previous one is done.

    Raises:
        UserError: there is no partition or no Slurm, or the folder's name is unsafe in a script.
    """
    if section.partition is None:
        raise UserError("The executor slurm needs a partition: add --execution.partition NAME.")
    _check_name(work.absolute())
    last = None
    for stage in stages:
        last = _Job(stage, work, section, last)
    assert last is not None
    try:
        last.run()
    except FileNotFoundError:
        raise UserError(
            "sbatch is not installed here: run the command on a login node of the cluster, or use "
            "--execution.executor local."
        ) from None


class _Job(SlurmPipelineExecutor):
    """The tasks of a stage, run by a Slurm cluster."""

    def __init__(self, stage: Stage, work: Path, section: ExecutionSection, depends: "_Job | None"):
        logs = str(logs_of(work, stage.name).absolute())
        output = f"{logs.replace('%', '%%')}/slurm_logs/%A_%a.out"
        super().__init__(
            list(stage.steps),
            tasks=stage.tasks,
            time=section.time,
            partition=section.partition,
            mem_per_cpu_gb=section.memory,
            workers=section.workers,
            job_name=f"clp-jax-{stage.name}",
            depends=depends,
            logging_dir=logs,
            sbatch_args={"output": output, "error": output},
            mail_type="NONE",
        )

    def get_launch_file_contents(self, sbatch_args: Mapping[str, Any], run_script: str) -> str:
        """The script of the job array; ``run_script``, the unquoted command, is not used."""
        options = [
            f"#SBATCH --{key}" + (f"={shlex.quote(str(value))}" if value else "")
            for key, value in sbatch_args.items()
        ]
        pipeline = self.logging_dir.resolve_paths("executor.pik")
        commands = [
            "set -e",
            *_activation(),
            "export PYTHONUNBUFFERED=TRUE",
            f"srun -l -n 1 launch_pickled_pipeline {shlex.quote(pipeline)}",
        ]
        return "\n".join(["#!/bin/bash", *options, *commands, ""])

    def launch_merge_stats(self) -> None:
        """Submit no job: the last stage adds up the tasks' counts."""


def _activation() -> list[str]:
    """The commands that activate this virtual environment, if there is one."""
    script = shlex.quote(f"{sys.prefix}/bin/activate")
    return [] if sys.prefix == sys.base_prefix else [f"source {script}"]


def _check_name(folder: Path) -> None:
    """Refuse backslashes (special to Slurm), ``::`` (to fsspec), and control characters."""
    name = str(folder)
    if not name.isprintable() or "\\" in name or "::" in name:
        raise UserError(
            f"The folder {name!r} cannot be used in a Slurm script: choose an output folder whose "
            "path has no line breaks, other control characters, backslashes or '::'."
        )


RESUME = "run the same command again to resume"


def run_stages(stages: Sequence[Stage], work: Path, section: ExecutionSection) -> bool:
    """Run the stages in order, and skip the tasks that are already done.

    Args:
        stages: The stages.
        work: Folder for logs and completion marks, visible to all machines involved and locked by
            this run (see `only_run`).
        section: Where to run them.

    Returns:
        Whether the stages are done; stages submitted to Slurm are not.

    Raises:
        UserError: a task raised one, the disk is full, or a worker process was killed.
    """
    match section.executor:
        case "local":
            _run_here(stages, work, section.workers)
            return True
        case "slurm":
            submit(stages, work, section)
            return False
        case "ray":
            _run_on_ray(stages, work, section)
            return True


class _Tasks(PipelineExecutor):
    """The tasks of a stage, run by processes on this machine."""

    def __init__(self, stage: Stage, work: Path):
        super().__init__(list(stage.steps), str(logs_of(work, stage.name)))
        self.tasks = stage.tasks

    @property
    def world_size(self) -> int:
        return self.tasks

    def get_distributed_env(self, node_rank: int = -1) -> DistributedEnvVars:
        return DistributedEnvVars(
            datatrove_node_ips="localhost",
            datatrove_cpus_per_task="-1",
            datatrove_mem_per_cpu="-1",
            datatrove_gpus_on_node="-1",
            datatrove_executor="LOCAL",
        )

    def run_task(self, rank: int) -> None:
        """Run one task; datatrove's messages go to its log alone."""
        with contextlib.redirect_stderr(io.StringIO()):
            self._run_for_rank(rank)

    def run(self) -> None:
        raise NotImplementedError("run_stages runs the tasks")


def _run_here(stages: Sequence[Stage], work: Path, workers: int) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers if workers > 0 else cores or 1, max(stage.tasks for stage in stages))
    with _pool(workers, max(1, (cores or 1) // workers), work) as pool:
        for stage in stages:
            try:
                _run_stage(_Tasks(stage, work), stage.name, pool)
            except BrokenProcessPool:
                raise UserError(
                    f"A process of the stage {stage.name} was killed, probably for lack of "
                    f"memory: use fewer --execution.workers and {RESUME}."
                ) from None
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise UserError(
                    f"The disk that holds {work.parent} is full: free some space and {RESUME}."
                ) from None


def _run_stage(tasks: _Tasks, name: str, pool: ProcessPoolExecutor | None) -> None:
    ranks = tasks.get_incomplete_ranks()
    done = tasks.world_size - len(ranks)
    bar = tqdm(desc=name, total=tasks.world_size, initial=done, unit=" tasks", disable=None)
    with bar:
        if pool is None or len(ranks) == 1:
            for rank in ranks:
                copy.deepcopy(tasks).run_task(rank)
                bar.update()
            return
        for task in as_completed([pool.submit(tasks.run_task, rank) for rank in ranks]):
            task.result()
            bar.update()


@contextlib.contextmanager
def _pool(workers: int, threads: int, work: Path) -> Iterator[ProcessPoolExecutor | None]:
    """Worker processes, terminated if the block fails; None for one task at a time."""
    if workers == 1:
        yield None
        return
    others = active_children()
    with ProcessPoolExecutor(
        workers, get_context("spawn"), _start_worker, (os.getpid(), threads, work)
    ) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(active_children()) - set(others):
                process.terminate()
            raise


def _start_worker(parent: int, threads: int, work: Path) -> None:
    """Keep the folder locked while this process lives, and exit when its parent is gone."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent terminates its workers
    lock_for_worker(work)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(HEARTBEAT)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_on_ray(stages: Sequence[Stage], work: Path, section: ExecutionSection) -> None:
    executor = _ray_executor()
    for stage in stages:
        executor(
            list(stage.steps),
            tasks=stage.tasks,
            workers=section.workers,
            mem_per_cpu_gb=section.memory,
            logging_dir=str(logs_of(work, stage.name)),
        ).run()


def _ray_executor() -> Any:
    try:
        import ray  # noqa: F401
        from datatrove.executor.ray import RayPipelineExecutor
    except ImportError:
        raise UserError("The executor ray needs the package ray: pip install ray.") from None
    return RayPipelineExecutor
