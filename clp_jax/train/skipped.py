"""Steps that changed nothing, since their loss was no number or their gradient a spike."""

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


class SkippedSteps:
    """Counts the skipped steps in a row.

    What became of a step is looked at when the next one was handed to the devices, so that they
    have work while the host waits for it.

    Args:
        limit: So many in a row are too many.
        in_a_row: How many there were just before the first step.
    """

    def __init__(self, limit: int, in_a_row: int):
        self._limit = limit
        self._in_a_row = in_a_row
        self._open: tuple[int, Float[Array, ""]] | None = None

    def add(self, step: int, skipped: Float[Array, ""]) -> None:
        """Note what a step says of itself, 1 or 0, and look at the one before it.

        Raises:
            TooManySkipped: that was one too many.
        """
        self.settled()
        self._open = (step, skipped)

    def settled(self) -> int:
        """How many there are in a row up to the last step that was noted, which is waited for.

        Raises:
            TooManySkipped: too many.
        """
        if self._open is not None:
            step, skipped = self._open
            self._open = None
            self._in_a_row = self._in_a_row + 1 if jax.device_get(skipped) else 0
            if self._in_a_row >= self._limit:
                raise TooManySkipped(step)
        return self._in_a_row
