"""Steps that changed nothing, since their loss was no number or their gradient a spike."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float


class TooManySkipped(Exception):
    """So many steps in a row changed nothing that the rule of the run is to be followed.

    Args:
        step: The last of them.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


@dataclass(frozen=True)
class Skipped:
    """How many steps changed nothing."""

    in_a_row: int = 0
    """Up to the last one."""
    total: int = 0
    """Since the run began."""


class SkippedSteps:
    """Counts the skipped steps.

    What became of a step is looked at when the next one was handed to the devices, so that they
    have work while the host waits for it.

    Args:
        limit: So many in a row are too many.
        before: How many there were before the first step.
    """

    def __init__(self, limit: int, before: Skipped):
        self._limit = limit
        self._count = before
        self._open: tuple[int, Float[Array, ""]] | None = None

    def add(self, step: int, skipped: Float[Array, ""]) -> None:
        """Note what a step says of itself, 1 or 0, and look at the one before it.

        Raises:
            TooManySkipped: that was one too many.
        """
        self.settled()
        self._open = (step, skipped)

    def settled(self) -> Skipped:
        """How many there are up to the last step that was noted, which is waited for.

        Raises:
            TooManySkipped: too many.
        """
        if self._open is not None:
            step, skipped = self._open
            self._open = None
            if jax.device_get(skipped):
                self._count = Skipped(self._count.in_a_row + 1, self._count.total + 1)
            else:
                self._count = Skipped(0, self._count.total)
            if self._count.in_a_row >= self._limit:
                raise TooManySkipped(step)
        return self._count
