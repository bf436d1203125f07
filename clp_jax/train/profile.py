"""A trace of a few training steps, for TensorBoard's profiler."""

from pathlib import Path

import jax
from jaxtyping import PyTree

PROFILE = "profile"
STEPS = 3
"""Steps that are traced."""
AFTER = 10
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
        self._first = start + 1 + max(0, min(AFTER, steps - start - STEPS))
        self._last = min(self._first + STEPS - 1, steps)

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
