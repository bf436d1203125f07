"""Runs the stages of `clp-jax prepare`: here, on a Slurm cluster or on Ray."""

import contextlib
import copy
import errno
import io
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from datatrove.executor.base import DistributedEnvVars, PipelineExecutor
from tqdm import tqdm

from clp_jax.data.config import ExecutionSection
from clp_jax.data.lock import HEARTBEAT, share
from clp_jax.data.slurm import submit
from clp_jax.data.stages import Stage, logs_of
from clp_jax.errors import UserError

GO_ON = "run the same command again to go on from there"


def run_stages(stages: Sequence[Stage], work: Path, section: ExecutionSection) -> bool:
    """Run the stages one after the other, except for tasks that are done already.

    Args:
        stages: What there is to do.
        work: Folder for logs and marks, seen by all machines that take part, and held by this
            run (see `clp_jax.data.lock`).
        section: Where to run them.

    Returns:
        Whether they are done; stages given to Slurm are not yet.

    Raises:
        UserError: a task ended with one, the disk is full, or a worker process was killed.
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
    """The tasks of a stage, to be run by the processes of this machine."""

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
        """Run one task; what datatrove would print goes into its log alone."""
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
                    f"A process of the stage {stage.name} was killed, probably for want of "
                    f"memory: give fewer --execution.workers and {GO_ON}."
                ) from None
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise UserError(
                    f"The disk that holds {work.parent} is full: make room and {GO_ON}."
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
    """Worker processes, ended at once if the block fails; none for one task at a time."""
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
    """Keep the folder as long as this process lives, and do not outlive the one that started it."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    share(work)

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
