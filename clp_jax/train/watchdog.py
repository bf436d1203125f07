"""The end of a run that hangs: a machine that waits for ever costs as much as one that works."""

import faulthandler
import os
import sys
import threading
import time

EXIT_STATUS = 75
"""Status of a process that the watchdog ended: EX_TEMPFAIL of sysexits.h, try again."""


class Watchdog:
    """Ends the process when a stage of the run takes too long, after telling where it stands.

    A reader that stalls, storage that does not answer and a dead process that the others wait for
    all look the same: nothing happens. Whatever started the run can start it again, and it resumes.
    Use it as a context.

    Args:
        minutes: How long a stage may take; 0 watches nothing.
    """

    def __init__(self, minutes: float):
        self._limit = 60 * minutes
        self._stage = ("the start", time.monotonic())
        self._over = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._limit:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def stage(self, name: str) -> None:
        """Say what the run does from now on, however often it has done that before."""
        self._stage = (name, time.monotonic())

    def _watch(self) -> None:
        while not self._over.wait(self._limit / 20):
            name, since = self._stage
            if time.monotonic() - since > self._limit:
                self._end(name)

    def _end(self, stage: str) -> None:
        faulthandler.dump_traceback(all_threads=True)
        print(
            f"clp-jax: {stage} has taken more than {self._limit / 60:g} minutes "
            "(train.watchdog_minutes), and hangs where the stacks above show: start the same "
            "command with --resume to go on from the newest checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_STATUS)
