"""Time and memory of the transfer, against its bare matrix products, the naive loop and its peers.

    python scripts/bench_transfer.py --peer-python PEERS/bin/python --peer-rows 4096

measures the methods at the sizes of GPT-2 XL and of BLOOM-7b1 on random tables, each part in a
process of its own, and prints one Markdown table a setting. It needs 6 GB of disk in --scratch.
PEERS is an environment made with `pip install langsfer deepfocus`.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from bench_transfer_tables import SETTINGS, Setting, open_inputs, read_problem, write_inputs

from clp_jax.checkpoint.tensors import LazyTensor, write_tensors
from clp_jax.evaluate.tables import markdown_table
from clp_jax.transfer.blockwise import matmul
from clp_jax.transfer.compose import new_table
from clp_jax.transfer.interface import Problem
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.methods.clp import clp

REPEATS = 3
LONG = 60
"""Seconds after which a measurement is not repeated."""
LOOP_ROWS = 20
DENSE_ROWS = 1024


class Measured(NamedTuple):
    """Seconds of the fastest run, and bytes of memory beyond the inputs'."""

    seconds: float
    peak: int


@jax.jit
def two_products(queries, anchors, rows):
    return matmul(queries, matmul(anchors.T, rows))


@jax.jit
def dense_block(queries, anchors, rows):
    return matmul(matmul(queries, anchors.T), rows)


def products(problem: Problem) -> Callable[[], Any]:
    """The cheapest order of the sum over all anchors, on tables that lie on the device."""
    tables = jax.block_until_ready(jax.device_put((problem.queries, problem.anchors, problem.rows)))
    return lambda: two_products(*tables)


def dense(problem: Problem) -> Callable[[], Any]:
    """All similarities and the combination by them, a block of queries at a time."""
    tables = jax.block_until_ready(jax.device_put((problem.anchors, problem.rows)))
    blocks = [
        jax.device_put(problem.queries[start : start + DENSE_ROWS])
        for start in range(0, len(problem.queries), DENSE_ROWS)
    ]
    return lambda: [dense_block(block, *tables) for block in blocks]


def loop(problem: Problem) -> Callable[[], Any]:
    """The paper's sum as it is written: for each token all cosines, then the weighted mean."""

    def combine() -> None:
        norms = np.linalg.norm(problem.anchors, axis=1)
        for row in problem.queries[:LOOP_ROWS]:
            weights = problem.anchors @ row / norms / np.linalg.norm(row)
            weights @ problem.rows / weights.sum()

    return combine


def method(name: str) -> Callable[[Problem], Callable[[], Any]]:
    """A method of the product, from NumPy tables to NumPy rows."""
    return lambda problem: lambda: METHODS[name].method(problem).rows


class Part(NamedTuple):
    """What is measured, and what makes the function to measure of a problem."""

    text: str
    prepare: Callable[[Problem], Callable[[], Any]]


METHOD_NAMES = "clp", "ridge", "procrustes", "clp-topk", "clp-sparse", "omp"
PARTS = {
    "products": Part("two matrix products alone", products),
    "dense": Part("all similarities times the rows alone", dense),
    **{name: Part(name, method(name)) for name in METHOD_NAMES},
    "loop": Part(f"clp as a loop over tokens, from {LOOP_ROWS} of them", loop),
}
STAGE = "stage"
PEERS = "langsfer", "deepfocus"
OURS = {"loop": "clp", "langsfer": "clp", "deepfocus": "clp-sparse"}
"""Which of our methods does the same."""


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(function: Callable[[], Any]) -> Measured:
    """The fastest of some runs after one that compiles, or the first alone if it is long."""
    start = peak()
    times: list[float] = []
    while len(times) <= REPEATS and sum(times) < LONG:
        clock = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - clock)
    return Measured(min(times), peak() - start)


def measure_part(name: str, folder: Path) -> Measured:
    problem = read_problem(folder)
    measured = measure(PARTS[name].prepare(problem))
    if name == "loop":
        return measured._replace(seconds=measured.seconds * len(problem.queries) / LOOP_ROWS)
    return measured


def measure_stage(size: Setting, folder: Path) -> Measured:
    """clp from checkpoints on disk to a checkpoint on disk: read, hash, compile, combine, write."""
    start, clock = peak(), time.perf_counter()
    inputs = open_inputs(size, folder)
    basis = inputs.helper_rows()
    table = new_table(clp, basis, inputs.source, inputs.layout, source_weight=1, match_spread=False)
    (folder / "new").mkdir()
    write_tensors(folder / "new", {"table": LazyTensor.of(table.rows)})
    return Measured(time.perf_counter() - clock, peak() - start)


def measure_peer(name: str, folder: Path, options: argparse.Namespace) -> tuple[str, Measured]:
    """A package, in its own environment; where it computes some rows only, extrapolated."""
    rows = ["--rows", str(options.peer_rows)] if options.peer_rows else []
    script = Path(__file__).with_name("bench_transfer_peers.py")
    command = [options.peer_python, str(script), name, str(folder), *rows]
    print(name, file=sys.stderr)
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result = json.loads(answer.splitlines()[-1])
    part = f", from {result['rows']:,} rows" if rows else ""
    return f"{name} {result['version']}{part}", Measured(result["seconds"], result["peak"])


def in_a_process(function, *arguments):
    print(function.__name__, *arguments, file=sys.stderr)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def table_of(found: dict[str, tuple[str, Measured]]) -> str:
    """The measurements, and their ratios to the products and to ours where those were measured."""

    def ratio(name: str, other: str | None) -> str:
        return f"{found[name][1].seconds / found[other][1].seconds:.2f}" if other in found else "-"

    rows = [
        (
            text,
            f"{measured.seconds:.2f}",
            *(ratio(name, other) for other in ("products", "dense", OURS.get(name))),
            f"{measured.peak / 2**30:.2f}",
        )
        for name, (text, measured) in found.items()
    ]
    headers = "what", "seconds", "to the two products", "to all similarities", "to ours"
    return markdown_table((*headers, "GiB beyond the inputs"), rows)


def measure_setting(size: Setting, options: argparse.Namespace) -> str:
    found: dict[str, tuple[str, Measured]] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        in_a_process(write_inputs, size, folder)
        for part in options.only:
            if part in PEERS:
                if options.peer_python:
                    found[part] = measure_peer(part, folder, options)
            elif part == STAGE:
                text = "clp from disk to disk, with reading, hashes and compilation"
                found[part] = text, in_a_process(measure_stage, size, folder)
            else:
                found[part] = PARTS[part].text, in_a_process(measure_part, part, folder)
    return table_of(found)


def device_kind() -> str:
    return jax.devices()[0].device_kind


def describe_machine() -> str:
    """Date, device and versions."""
    device = in_a_process(device_kind)
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores of {platform.machine()}, {device}, "
        f"jax {version('jax')}, numpy {version('numpy')}"
    )


def main() -> None:
    names = [*PARTS, STAGE, *PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["gpt2-xl", "bloom-7b1"])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="folder for the tables")
    parser.add_argument("--peer-python", help="interpreter with langsfer and deepfocus")
    parser.add_argument("--peer-rows", type=int, help="let peers compute so many rows only")
    options = parser.parse_args()
    print(describe_machine())
    for name in options.settings:
        size = SETTINGS[name]
        print(
            f"\n{name}: {size.shared:,} shared and {size.missing:,} missing tokens, "
            f"helper {size.helper_dim:,} wide, source {size.source_rows:,} x {size.source_dim:,}.\n"
        )
        print(measure_setting(size, options), flush=True)


if __name__ == "__main__":
    main()
