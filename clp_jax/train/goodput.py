"""Where the time of a run goes; its goodput is the share spent on training."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from clp_jax.evaluate.tables import markdown_table

STAGES: Mapping[str, str] = {
    "start": "starting, reading, compiling",
    "training": "training",
    "data": "waiting for batches",
    "validation": "validation",
    "saving": "handing over checkpoints",
    "lost": "steps that were repeated",
}
"""The stages into which the time of a run is divided."""


class TimeSpent:
    """Seconds per stage over all sessions of a run; one stage is always in progress.

    Args:
        since: `time.monotonic` when this session began, with the stage ``start``.
        before: The seconds of earlier sessions per stage.
    """

    def __init__(self, since: float, before: Mapping[str, float]):
        self.seconds = {stage: before.get(stage, 0.0) for stage in STAGES}
        self._stage, self._since = "start", since

    def go_to(self, stage: str) -> None:
        """Begin a stage; beginning the current one again brings its seconds up to date."""
        now = time.monotonic()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Count the time in this context as a stage, then return to the previous one."""
        before = self._stage
        self.go_to(stage)
        yield
        self.go_to(before)

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of the time spent on training steps that count."""
        return self.seconds["training"] / self.total if self.total else 0.0

    def table(self) -> str:
        """A table with one row for each stage that took time."""
        rows = [
            (text, f"{self.seconds[stage]:,.1f}", f"{self.seconds[stage] / self.total:.1%}")
            for stage, text in STAGES.items()
            if self.seconds[stage]
        ]
        return markdown_table(("time of the run", "seconds", "share"), rows)


def time_before(
    lines: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The seconds of earlier sessions, whose last lines may no longer count.

    Training that must be repeated is lost. What a session did after its last line is not known.

    Args:
        lines: All lines of metrics that the sessions wrote.
        kept: Those up to the step from which the run resumes.
    """

    def last(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {stage: found[-1][f"time/{stage}"] if found else 0.0 for stage in STAGES}

    spent, training = last(lines), last(kept)["training"]
    return spent | {"training": training, "lost": spent["lost"] + spent["training"] - training}
