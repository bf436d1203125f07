"""Where the time of a run goes; its goodput is the share that was spent training."""

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
    "lost": "steps that were done again",
}
"""What the time of a run is divided into."""


class TimeSpent:
    """Seconds of all sessions of a run by stage; some stage is always going on.

    Args:
        since: `time.monotonic` from which this session counts; it begins with ``start``.
        before: The seconds of the sessions before it.
    """

    def __init__(self, since: float, before: Mapping[str, float]):
        self.seconds = {stage: before.get(stage, 0.0) for stage in STAGES}
        self._stage, self._since = "start", since

    def go_to(self, stage: str) -> None:
        """Begin a stage, or the one that is going on again: its seconds are then up to date."""
        now = time.monotonic()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Spend the time within on a stage, then go on with the one before."""
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
        """Share of the time that was spent on training steps which count."""
        return self.seconds["training"] / self.total if self.total else 0.0

    def table(self) -> str:
        """A line for each stage that took time."""
        rows = [
            (text, f"{self.seconds[stage]:,.1f}", f"{self.seconds[stage] / self.total:.1%}")
            for stage, text in STAGES.items()
            if self.seconds[stage]
        ]
        return markdown_table(("time of the run", "seconds", "share"), rows)


def time_before(
    lines: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The seconds of earlier sessions, of which the last lines may not count any more.

    Training that is to be done again is lost. What a session did after its last line is not known.

    Args:
        lines: All lines that the sessions wrote into the metrics.
        kept: Those up to the step from which the run goes on.
    """

    def last(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {stage: found[-1][f"time/{stage}"] if found else 0.0 for stage in STAGES}

    spent, training = last(lines), last(kept)["training"]
    return spent | {"training": training, "lost": spent["lost"] + spent["training"] - training}
