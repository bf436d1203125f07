"""Requests to stop, a watchdog for runs that hang, and a lease against two writers of one run.

A job that a scheduler restarts may begin before the job it replaces has ended. A process that
trains therefore writes ``lease.json`` into the run folder, renews it with a heartbeat every few
seconds, and checks before each checkpoint that it still holds the lease.
"""

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

from clp_jax.errors import UserError
from clp_jax.files import is_address, read_json, storage_errors, write_json
from clp_jax.mesh import decided_by_first
from clp_jax.train.run_folder import LEASE, RunStorage


class StopRequests:
    """Takes SIGTERM and SIGINT as requests to stop, which all processes obey at the same step.

    With `jax.distributed`, JAX catches SIGTERM itself and notifies all processes; a SIGINT is
    passed on as a SIGTERM. Without it, both are noted here. However many arrive, the step and the
    writing of its checkpoint are not disturbed. Use it as a context manager; leaving it restores
    the previous handlers. Python delivers signals only to the main thread: in any other thread,
    none are noted.
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
        """Whether to stop after ``step``: the same on all processes. Call it at every step."""
        return reached_preemption_sync_point(step) if self._shared else self._noted

    def _note(self, *_: Any) -> None:
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)
        self._noted = True


EXIT_STATUS = 75
"""Exit status of a process that the watchdog ended: EX_TEMPFAIL of sysexits.h, try again."""


class Watchdog:
    """Ends the process when a stage of the run takes too long, after printing where it hangs.

    A stalled reader, storage that does not answer and a dead process that the others wait for all
    look the same: nothing happens. Whatever started the run can restart it, and it resumes. Use it
    as a context manager.

    Args:
        minutes: How long a stage may take; 0 disables the watchdog.
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
        """Name the stage that begins now; its time counts from zero, even under the same name."""
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
            "(train.watchdog_minutes) and hangs where the stack traces above show: run the same "
            "command with --resume to continue from the newest checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_STATUS)


BEAT = 15.0
"""Seconds between heartbeats."""
PATIENCE = 90.0
"""Seconds without a heartbeat after which a process counts as ended."""
LONG_AGO = 900.0
"""Seconds without a heartbeat that no difference between two clocks explains."""


class RunLease:
    """The lease of a run, held by the first of its processes. Leaving the context releases it.

    Every process must call its methods.

    Args:
        place: Where the run folder is.
    """

    def __init__(self, place: RunStorage):
        self._place, self._out = place, place.out
        self._mine = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": _machine(),
            "started": _started(os.getpid()),
            "nonce": uuid.uuid4().hex,
        }
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "RunLease":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            with suppress(Exception):  # A lease left behind counts as a dead process's.
                if self._is_mine():
                    self._file.unlink()

    @property
    def _file(self) -> Any:
        return self._place.root / LEASE

    def take(self) -> None:
        """Take the lease, even from a process that has ended; the run folder must exist.

        A process on another machine counts as ended when it sends no heartbeat for `PATIENCE`
        seconds; this method waits for that long.

        Raises:
            UserError: the run belongs to another process.
        """
        with storage_errors(self._out):
            decided_by_first(self._take)

    def check(self) -> None:
        """Make sure that the lease is still held; call it before anything is saved.

        Raises:
            UserError: another process has taken it.
        """
        with storage_errors(self._out):
            decided_by_first(self._check)

    def _take(self) -> None:
        holder = self._read()
        if holder is not None:
            ended = self._wait_for(holder)
            print(
                f"{self._out}: {_name(holder)}, which trained it, {ended}: this one takes over.",
                flush=True,
            )
        self._write()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self._thread.start()

    def _check(self) -> None:
        holder = self._read()
        if holder is None or holder["nonce"] != self._mine["nonce"]:
            taken = "its lease was removed" if holder is None else f"{_name(holder)} took it over"
            raise UserError(
                f"{self._out}: {taken}, so this process stops and saves nothing more: make sure "
                "that only one process trains it."
            )

    def _wait_for(self, holder: Mapping[str, Any]) -> str:
        """How the holder has ended; one that may still be running is watched for a while.

        Raises:
            UserError: it has not ended.
        """
        if time.time() - holder["alive"] > LONG_AGO:
            return "sent its last heartbeat long ago"
        if holder["machine"] == self._mine["machine"]:
            if _started(holder["process"]) != holder["started"]:
                return "has ended"
            raise self._refusal(holder)
        print(
            f"{self._out}: {_name(holder)} may still be training it: waiting up to "
            f"{PATIENCE:.0f} seconds for its next heartbeat.",
            flush=True,
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(BEAT / 5)
            now = self._read()
            if now is None:
                return "has ended"
            if now != holder:
                raise self._refusal(now)
        return f"sent no heartbeat for {PATIENCE:.0f} seconds"

    def _refusal(self, holder: Mapping[str, Any]) -> UserError:
        return UserError(
            f"{self._out} is being trained by {_name(holder)}: wait until it ends, or stop it."
        )

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(Exception):  # What prevents a heartbeat prevents the next save too.
                if self._is_mine():
                    self._write()

    def _is_mine(self) -> bool:
        return (self._read() or {}).get("nonce") == self._mine["nonce"]

    def _write(self) -> None:
        value = self._mine | {"alive": time.time()}
        if is_address(self._out):
            self._file.write_text(json.dumps(value))
        else:
            write_json(Path(self._file), value)

    def _read(self) -> dict[str, Any] | None:
        """The contents of the lease; None if there is none or it is not readable."""
        with suppress(UserError):
            found = read_json(str(self._file))
            kinds = {key: type(value) for key, value in self._mine.items()} | {"alive": float}
            if {key: type(value) for key, value in found.items()} == kinds:
                return found
        return None


def _name(holder: Mapping[str, Any]) -> str:
    return f"process {holder['process']} on {holder['host']}"


def _machine() -> str:
    """The scope of a process id: a machine since its boot, and a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # Not Linux.
        return socket.gethostname()


def _started(process: int) -> str | None:
    """What distinguishes a process from a later one with the same id; None if it has ended."""
    if Path("/proc/self/stat").exists():
        try:
            state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else rest[18]
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
