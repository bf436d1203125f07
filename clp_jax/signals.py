"""SIGINT and SIGTERM end a command promptly, with a message and without unfinished files."""

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
"""Seconds that a command has to end by itself after a signal."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the command; like Ctrl-C, ordinary error handlers do not catch it.

    Args:
        number: The signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


@contextmanager
def answered_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise `Stopped`; a command that does not react is ended anyway.

    Python handles signals only between two of its instructions, and a computation of JAX or NumPy
    is a single one. So a thread also waits for them: `PATIENCE` seconds after the first signal, or
    at the second, it removes unfinished files and ends the process. Only the main thread handles
    signals. If `jax.distributed` is running, JAX handles SIGTERM and notifies all processes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    for end in (receiver, sender):
        end.setblocking(end is receiver)
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    jax = sys.modules.get("jax")
    shared = jax is not None and jax.distributed.is_initialized()
    numbers = [
        number
        for number in ((signal.SIGINT,) if shared else (signal.SIGINT, signal.SIGTERM))
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, _raise) for number in numbers}
    thread = threading.Thread(target=_listen, args=(receiver,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        sender.close()
        thread.join()
        receiver.close()


def _raise(number: int, _: Any) -> NoReturn:
    raise Stopped(number)


def _listen(receiver: socket.socket) -> None:
    """Wait for a signal that `_raise` handles, then for a second one or `PATIENCE` seconds."""
    number = _next(receiver)
    while number and signal.getsignal(number) is not _raise:
        number = _next(receiver)
    if not number:
        return
    receiver.settimeout(PATIENCE)
    try:
        if not _next(receiver):
            return
    except TimeoutError:
        pass
    remove_scratch()
    os.write(2, f"clp-jax: {Stopped(number)}\n".encode())
    os._exit(128 + number)


def _next(receiver: socket.socket) -> int:
    """The number of the next signal; 0 if there are no more."""
    return next(iter(receiver.recv(1)), 0)


def _forget() -> None:
    """In a forked process, restore the default handling of signals."""
    if signal.getsignal(signal.SIGTERM) is _raise:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _hold(False)


def _hold(held: bool = True) -> None:
    """Block or unblock signals: until `_forget` runs, a forked process would pass them on here."""
    how = signal.SIG_BLOCK if held else signal.SIG_UNBLOCK
    signal.pthread_sigmask(how, (signal.SIGINT, signal.SIGTERM))


os.register_at_fork(before=_hold, after_in_parent=lambda: _hold(False), after_in_child=_forget)
