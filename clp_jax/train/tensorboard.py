"""The scalars of a run as TensorBoard reads them."""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

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
