"""Where a run can be watched: TensorBoard, Weights & Biases, a trace of a few steps."""

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
    """A file of events, written by whoever calls it.

    tensorboardX's ``SummaryWriter`` has a thread for that, which a full disk ends, and which is
    then waited for for ever.

    Args:
        folder: Where the file is made.
        start: Step after which it starts; what earlier files say of later steps counts no more.
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
            OSError: there is no space, or no disk.
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
        """Write what is left, if it can be written."""
        with suppress(OSError):
            self._writer.close()


RUN_ID = "wandb_id"


def check_wandb(project: str | None) -> None:
    """Make sure that Weights & Biases is there if it is asked for.

    Raises:
        UserError: it is not installed.
    """
    if project is not None and find_spec("wandb") is None:
        raise UserError(
            "train.wandb needs Weights & Biases: `pip install wandb`, or leave the key out."
        )


def start_wandb(config: RunConfig, folder: Path) -> Any:
    """The run of Weights & Biases for a run folder, or None; only the first process has one.

    Every session of a run goes on with the same one, whose id is kept in the run folder. The
    package's own variables, such as ``WANDB_MODE``, work as usual.
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
"""Steps that are traced."""
STEPS_BEFORE_PROFILE = 10
"""Steps before them, in which caches and pipelines fill; fewer in a session that has fewer."""


class Profile:
    """Traces some steps of a session on the first process, and says where the trace is.

    Args:
        folder: The run folder, in which ``profile`` is written; None traces nothing.
        start: Step after which the session starts.
        steps: Steps of the whole run.
    """

    def __init__(self, folder: Path | None, start: int, steps: int):
        self._folder = folder if jax.process_index() == 0 else None
        self._first = start + 1 + max(0, min(STEPS_BEFORE_PROFILE, steps - start - PROFILED_STEPS))
        self._last = min(self._first + PROFILED_STEPS - 1, steps)

    def before(self, step: int) -> None:
        """Start the trace if it begins with this step."""
        if self._folder is not None and step == self._first:
            jax.profiler.start_trace(self._folder / PROFILE)

    def after(self, step: int, results: PyTree) -> None:
        """End the trace with the results of its last step."""
        if self._folder is not None and step == self._last:
            jax.block_until_ready(results)
            jax.profiler.stop_trace()
            print(
                f"Steps {self._first} to {self._last} are traced in {self._folder / PROFILE}: "
                f"see them with `tensorboard --logdir {self._folder}` and its profile plugin.",
                flush=True,
            )
