"""Requests to stop a run: from a scheduler, a machine that is about to be taken, or a keyboard."""

import os
import signal
import threading
from typing import Any

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point


class StopRequests:
    """Takes SIGTERM and SIGINT as requests to stop, which all processes heed at the same step.

    With `jax.distributed`, JAX catches SIGTERM itself and tells all processes of it; a SIGINT is
    passed on as one. Without it, both are noted here. However many come, the step and the writing
    of its checkpoint are not disturbed. Use it as a context; leaving it puts the previous handlers
    back. Python lets only the main thread take signals: in another one none are noted here.
    """

    def __enter__(self) -> "StopRequests":
        self._noted = False
        self._shared = jax.distributed.is_initialized()
        caught: tuple[int, ...] = (
            (signal.SIGINT,) if self._shared else (signal.SIGINT, signal.SIGTERM)
        )
        if threading.current_thread() is not threading.main_thread():
            caught = ()
        self._before = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def reached(self, step: int) -> bool:
        """Whether to stop after ``step``: the same on all processes. To be asked at every step."""
        return reached_preemption_sync_point(step) if self._shared else self._noted

    def _note(self, *_: Any) -> None:
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)
        self._noted = True
