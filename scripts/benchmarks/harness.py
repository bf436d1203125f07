"""What the benchmarks share: the machine in a line, processes of their own, turns and tables."""

import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import date
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from clp_jax.evaluate.tables import markdown_table

CORES = len(os.sched_getaffinity(0))
INTERVAL = 0.01
"""Seconds between two looks at a process's memory; its children are listed at every tenth."""
REPEATS = 3
LONG = 60
"""Seconds after which a measurement is not repeated."""


class Measured(NamedTuple):
    """What a call took and returned."""

    seconds: float
    cpu_seconds: float
    """Of all cores and child processes together."""
    peak: int
    """Most bytes of the process and its children beyond those before the call."""
    result: Any


def print_machine(*packages: str) -> None:
    """Print date, cores, device and versions."""
    device = in_a_process(device_kind).result
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", *packages))
    print(f"{date.today()}, {CORES} cores of {platform.machine()}, {device}, {versions}\n")


def device_kind() -> str:
    import jax

    return jax.devices()[0].device_kind


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table, each row once it is measured."""
    seen: list[Sequence[str]] = []
    for row in rows:
        seen.append(row)
        lines = markdown_table(headers, seen).splitlines()
        print("\n".join(lines[-1:] if len(seen) > 1 else lines), flush=True)


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Measure a call in a new process."""
    return measure(partial, function, *arguments)


def measure(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> Measured:
    """Measure, in a new process, a call of what `prepare` returns there."""
    words = (getattr(word, "__name__", word) for word in (prepare, *arguments))
    shown = (word for word in words if isinstance(word, str) and word != "partial")
    print(time.strftime("%X"), *shown, file=sys.stderr)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pid = pool.submit(_prepare, prepare, arguments).result()
        before = own_memory([psutil.Process(pid)])
        running = pool.submit(_call)
        peak = _peak(pid, running.done) - before
        seconds, cpu_seconds, result = running.result()
    return Measured(seconds, cpu_seconds, max(peak, 0), result)


def measure_script(python: str, script: str, *arguments: object) -> tuple[dict[str, Any], int]:
    """Run a script of this folder in an environment of its own.

    Returns:
        What it prints as JSON on its last line, and its peak memory in bytes beyond what it holds
        when it prints `ready`.
    """
    command = [python, str(Path(__file__).parent / script), *map(str, arguments)]
    print(time.strftime("%X"), *command[1:], file=sys.stderr)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        before = own_memory([psutil.Process(process.pid)])
        peak = _peak(process.pid, lambda: process.poll() is not None) - before
        lines = process.stdout.read().splitlines()
    if process.returncode:
        sys.exit(f"{script} failed.")
    return json.loads(lines[-1]), peak


def own_memory(processes: Iterable[psutil.Process]) -> int:
    """Resident bytes of processes, without those of mapped files.

    Pages that a fork shares with its parent count for both.
    """
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_info()
            total += memory.rss - memory.shared
    return total


def _peak(pid: int, ended: Callable[[], bool]) -> int:
    peak, processes = 0, []
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for look in count():
            if ended():
                break
            if look % 10 == 0:
                processes = [root, *root.children(recursive=True)]
            peak = max(peak, own_memory(processes))
            time.sleep(INTERVAL)
    return peak


_prepared: list[Callable[[], Any]] = []
"""What the new process is about to call."""


def _prepare(prepare: Callable[..., Callable[[], Any]], arguments: Sequence[Any]) -> int:
    _prepared.append(prepare(*arguments))
    return os.getpid()


def _call() -> tuple[float, float, Any]:
    clock, cpu = time.perf_counter(), cpu_seconds()
    result = _prepared.pop()()
    return time.perf_counter() - clock, cpu_seconds() - cpu, result


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def seconds(function: Callable[[], Any]) -> float:
    """Time of one call, until the arrays that it returns are there."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def fastest(function: Callable[[], Any]) -> float:
    """Least time of some calls after one that compiles, or of the first alone if it is long."""
    times: list[float] = []
    while len(times) <= REPEATS and sum(times) < LONG:
        times.append(seconds(function))
    return min(times)


def in_turns(turns: int, ways: Mapping[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Call each way once a turn: A B A B; returns what each returned."""
    found: dict[str, list[Any]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            found[name].append(way())
    return found


def times_in_turns(turns: int, steps: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each step in turns, after one that warms up."""
    ways = {name: partial(seconds, step) for name, step in steps.items()}
    return {name: times[1:] for name, times in in_turns(turns + 1, ways).items()}


def ratio(times: Sequence[float], others: Sequence[float]) -> str:
    """Median of each turn's ratio, with the lowest and the highest where there are several."""
    ratios = [time / other for time, other in zip(times, others, strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{median(ratios):.2f}{spread}"


def gib(size: float) -> str:
    return f"{size / 2**30:.2f}"
