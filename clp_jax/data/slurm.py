"""Hands the stages of `clp-jax prepare` to a Slurm cluster: a job array for each.

datatrove writes folders into the scripts as they are, where a shell would obey what is in their
names. The scripts are written here: all that comes from elsewhere is quoted, for the shell and for
Slurm, whose lines ``#SBATCH`` know quotes too.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor

from clp_jax.data.config import ExecutionSection
from clp_jax.data.stages import Stage, logs_of
from clp_jax.errors import UserError


def submit(stages: Sequence[Stage], work: Path, section: ExecutionSection) -> None:
    """Submit the stages, each to begin when the one before is done.

    Raises:
        UserError: there is no partition or no Slurm, or the name of the folder cannot be passed on.
    """
    if section.partition is None:
        raise UserError("The executor slurm needs a partition: give --execution.partition NAME.")
    _check_name(work.absolute())
    last = None
    for stage in stages:
        last = _Job(stage, work, section, last)
    assert last is not None
    try:
        last.run()
    except FileNotFoundError:
        raise UserError(
            "sbatch is not installed here: run the command on a login node of the cluster, or with "
            "--execution.executor local."
        ) from None


class _Job(SlurmPipelineExecutor):
    """The tasks of a stage, to be run by a cluster."""

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
        """The script of the array; ``run_script``, the same command without quotes, is not used."""
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
        """No job: the last stage adds up what the tasks have counted."""


def _activation() -> list[str]:
    """What activates this virtual environment, if it is one."""
    script = shlex.quote(f"{sys.prefix}/bin/activate")
    return [] if sys.prefix == sys.base_prefix else [f"source {script}"]


def _check_name(folder: Path) -> None:
    """Slurm takes a backslash as its own, and fsspec ``::``; nobody can quote a line break."""
    name = str(folder)
    if not name.isprintable() or "\\" in name or "::" in name:
        raise UserError(
            f"The folder {name!r} cannot be named in a script for Slurm: choose an output folder "
            "without line breaks, other control characters, backslashes and '::' in its path."
        )
