import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from clp_jax.cli import main
from clp_jax.signals import Stopped, answered_signals

# Deriving a key is one long call of C, which no exception can enter.
DEAF = """
import hashlib, sys
from clp_jax import cli, signals
from clp_jax.files import new_folder, scratch_folder

def run(_):
    with new_folder(sys.argv[1]) as folder, scratch_folder() as scratch:
        (folder / "weights").write_text("half")
        print(scratch, flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

signals.PATIENCE = 0.3
cli.runs._run = run
cli.main(["runs"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_computation_is_ended_and_leaves_nothing(number, tmp_path):
    # In the background of a shell, SIGINT is ignored, and by all that is started there.
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(tmp_path / "out")],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline().startswith(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(number)
    assert process.communicate(timeout=120) == ("", f"clp-jax: stopped by {number.name}\n")
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())


@pytest.fixture
def interruptible():
    """In the background of a shell, SIGINT is ignored, and by all that is started there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_names_the_signal(number, monkeypatch, capsys, interruptible):
    monkeypatch.setattr("clp_jax.cli.runs._run", lambda _: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        main(["runs"])
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == f"clp-jax: stopped by {signal.Signals(number).name}\n"
    assert signal.getsignal(number) is before


def test_a_forked_process_keeps_its_signals_to_itself(interruptible):
    with answered_signals():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(10)
        time.sleep(0.1)
    assert child.exitcode == -signal.SIGTERM


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with answered_signals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_than_the_main_one_takes_no_signals():
    seen = []

    def enter():
        with answered_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_no_error_handler_catches_it():
    assert not issubclass(Stopped, Exception)


def test_an_exception_that_cannot_propagate_is_not_printed(monkeypatch, capsys):
    class Deaf:
        def __del__(self):
            raise Stopped(signal.SIGINT)

    monkeypatch.setattr("clp_jax.cli.runs._run", lambda _: Deaf() and None)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    main(["runs"])
    assert capsys.readouterr().err == ""
