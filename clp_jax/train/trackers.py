"""Ways to watch a run: TensorBoard, Weights & Biases and a trace of a few steps."""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from clp_jax.config import RunConfig
from clp_jax.errors import UserError

FLUSH_SECONDS = 30.0


class EventFile:
    """A TensorBoard event file, written in the calling thread.

    tensorboardX's ``SummaryWriter`` writes in its own thread. A full disk ends that thread, and the
    writer then waits for it forever.

    Args:
        folder: Folder in which the file is created.
        start: Step after which it starts; later steps in earlier files no longer count.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        begins = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=start + 1, session_log=begins))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars that are finite.

        Raises:
            OSError: the disk is full or gone.
        """
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in scalars.items()
            if math.isfinite(value)
        ]
        now = time.time()
        self._writer.write_event(Event(wall_time=now, step=step, summary=Summary(value=values)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left, if possible."""
        with suppress(OSError):
            self._writer.close()


RUN_ID = "wandb_id"


def check_wandb(project: str | None) -> None:
    """Make sure that Weights & Biases is installed if it is requested.

    Raises:
        UserError: it is not installed.
    """
    if project is not None and find_spec("wandb") is None:
        raise UserError(
            "train.wandb needs Weights & Biases: run `pip install wandb`, or remove the key."
        )


def start_wandb(config: RunConfig, folder: Path) -> Any:
    """The Weights & Biases run for a run folder, or None; only the first process has one.

    Every session of a run resumes the same one, whose id is stored in the run folder. The package's
    own environment variables, such as ``WANDB_MODE``, work as usual.
    """
    if config.train.wandb is None or jax.process_index():
        return None
    import wandb

    file = folder / RUN_ID
    run = wandb.init(
        project=config.train.wandb,
        name=folder.name,
        id=file.read_text("utf-8") if file.exists() else None,
        resume="allow",
        dir=str(folder),
        config=config.model_dump(mode="json"),
    )
    file.write_text(run.id, "utf-8")
    run.define_metric("*", step_metric="step")
    return run


PROFILE = "profile"
PROFILED_STEPS = 3
"""Steps to trace."""
STEPS_BEFORE_PROFILE = 10
"""Steps before them, in which caches and pipelines fill; fewer in a short session."""


class Profile:
    """Traces a few steps of a session on the first process and prints where the trace is.

    Args:
        folder: The run folder, in which ``profile`` is written; None disables the trace.
        start: Step after which the session starts.
        steps: Steps of the whole run.
    """

    def __init__(self, folder: Path | None, start: int, steps: int):
        self._folder = folder if jax.process_index() == 0 else None
        self._first = start + 1 + max(0, min(STEPS_BEFORE_PROFILE, steps - start - PROFILED_STEPS))
        self._last = min(self._first + PROFILED_STEPS - 1, steps)

    def before(self, step: int) -> None:
        """Start the trace if this is its first step."""
        if self._folder is not None and step == self._first:
            jax.profiler.start_trace(self._folder / PROFILE)

    def after(self, step: int, results: PyTree) -> None:
        """End the trace if this is its last step, once the results are ready."""
        if self._folder is not None and step == self._last:
            jax.block_until_ready(results)
            jax.profiler.stop_trace()
            print(
                f"Steps {self._first} to {self._last} are traced in {self._folder / PROFILE}: "
                f"view them with `tensorboard --logdir {self._folder}` and its profile plugin.",
                flush=True,
            )
