"""SIGINT and SIGTERM end a command soon, with a sentence, and leave nothing unfinished behind."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from clp_jax.files import remove_scratch

PATIENCE = 10.0
"""Seconds that a command has to end by itself."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the command; like a Ctrl-C, it passes all that handles errors.

    Args:
        number: The signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


@contextmanager
def answered_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise `Stopped`; what is deaf to it is ended all the same.

    Python looks at signals between two of its own instructions, and a computation of JAX or NumPy
    is one. So a thread hears of them too: `PATIENCE` seconds after the first, or at the second, it
    removes what is unfinished and ends the process. Only the main thread takes signals. Where
    `jax.distributed` runs already, SIGTERM stays JAX's, which tells all processes of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = socket.socketpair()
    for end in (heard, told):
        end.setblocking(end is heard)
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    jax = sys.modules.get("jax")
    shared = jax is not None and jax.distributed.is_initialized()
    numbers = [
        number
        for number in ((signal.SIGINT,) if shared else (signal.SIGINT, signal.SIGTERM))
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, _raise) for number in numbers}
    thread = threading.Thread(target=_listen, args=(heard,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        told.close()
        thread.join()
        heard.close()


def _raise(number: int, _: Any) -> NoReturn:
    raise Stopped(number)


def _listen(heard: socket.socket) -> None:
    """Wait for a signal that is not handled otherwise, then for a second one or long enough."""
    number = _next(heard)
    while number and signal.getsignal(number) is not _raise:
        number = _next(heard)
    if not number:
        return
    heard.settimeout(PATIENCE)
    try:
        if not _next(heard):
            return
    except TimeoutError:
        pass
    remove_scratch()
    os.write(2, f"clp-jax: {Stopped(number)}\n".encode())
    os._exit(128 + number)


def _next(heard: socket.socket) -> int:
    """The number of the next signal; 0 when there are no more."""
    return next(iter(heard.recv(1)), 0)


def _forget() -> None:
    """In a forked process: what it is sent is its own."""
    if signal.getsignal(signal.SIGTERM) is _raise:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _hold(False)


def _hold(held: bool = True) -> None:
    """Whether signals wait: a forked process that got one before it forgets would tell this one."""
    how = signal.SIG_BLOCK if held else signal.SIG_UNBLOCK
    signal.pthread_sigmask(how, (signal.SIGINT, signal.SIGTERM))


os.register_at_fork(before=_hold, after_in_parent=lambda: _hold(False), after_in_child=_forget)
