"""Processes that begin in a moment: forked from one that has imported what a stage imports.

A stage spends seconds on imports, and tests start dozens of processes. In the one they are forked
from, JAX has been imported but not begun.
"""

import multiprocessing
import os
import socket
import threading

BEGIN = """
import atexit, os, sys
for stream in (1, 2):
    os.dup2(output.fileno(), stream)
os.environ.update(environment)
sys.argv = ["-c", *arguments]
try:
    exec(code, {"__name__": "__main__"})
finally:
    atexit._run_exitfuncs()
"""

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["clp_jax.chain", "clp_jax.cli", "clp_jax.train.loop"])


class Started:
    """A process that runs ``python -c CODE ARGUMENTS``, with its errors among its output."""

    def __init__(self, code, *arguments, **environment):
        self._output, output = server.Pipe(duplex=False)
        self.stdout = open(self._output.fileno(), encoding="utf-8", closefd=False)  # noqa: SIM115
        given = {
            "code": code, "arguments": arguments, "environment": environment, "output": output,
        }  # fmt: skip
        self._process = server.Process(target=exec, args=(BEGIN, given))
        self._process.start()
        output.close()

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def end(self, timeout=300):
        """Wait for its end and return its exit status and the rest of its output."""
        hung = threading.Timer(timeout, self._process.kill)
        hung.start()
        rest = self.stdout.read()
        self._process.join()
        assert not hung.finished.is_set(), f"it did not end in {timeout} seconds: {rest}"
        hung.cancel()
        return self._process.exitcode, rest


def start_two(code, *arguments):
    """Two processes that find each other as any launcher lets them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [Started(code, *arguments, **shared, JAX_PROCESS_ID=str(index)) for index in range(2)]
