"""Time and memory of the transfer, against its bare matrix products, the naive loop and its peers.

    python scripts/benchmarks/transfer.py --peer-python PEERS/bin/python --peer-rows 4096

measures the methods at the sizes of GPT-2 XL and of BLOOM-7b1 on random tables, each part in a
process of its own, and prints one Markdown table per size. It needs 6 GB of disk in --scratch.
PEERS is an environment made with `pip install langsfer deepfocus`.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from harness import fastest, gib, in_a_process, measure, measure_script, print_machine, print_table

from clp_jax.checkpoint.tensors import LazyTensor, open_tensors, write_tensors
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.anchors import TableInputs
from clp_jax.transfer.blockwise import matmul
from clp_jax.transfer.compose import Predictions, new_table
from clp_jax.transfer.interface import Problem
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.methods.clp import clp
from clp_jax.transfer.table import Layout

LOOP_ROWS = 20
DENSE_ROWS = 1024
FIELDS = "queries", "anchors", "rows", "mean", "std"


class Size(NamedTuple):
    """Numbers of tokens that both vocabularies have and that the source lacks, and tables."""

    shared: int
    missing: int
    helper_dim: int
    source_rows: int
    source_dim: int


SIZES = {
    "gpt2-xl": Size(11_089, 38_911, 768, 50_257, 1600),
    "bloom-7b1": Size(24_000, 26_257, 1600, 250_880, 4096),
    "tiny": Size(1000, 3000, 64, 5000, 128),
}


def random_table(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Rows with a common mean, as those of large models have."""
    table = rng.standard_normal((rows, dim), np.float32)
    table += rng.standard_normal(dim, np.float32)
    return table


def layout_of(shared: np.ndarray, missing: np.ndarray, copied_source: np.ndarray) -> Layout:
    """A table whose shared tokens are anchors, and whose missing tokens the helper has."""
    return Layout(
        rows=len(shared) + len(missing),
        copied_source=copied_source,
        copied=shared,
        anchors=len(shared),
        anchor_helper=shared,
        roles=shared[:0],
        missing=missing,
        missing_helper=missing,
        padding=shared[:0],
        keeps=False,
    )


def open_inputs(size: Size, folder: Path) -> TableInputs:
    """Two checkpoints; shared and missing tokens in a random order."""
    rng = np.random.default_rng(1)
    shared, missing = np.split(rng.permutation(size.shared + size.missing), [size.shared])
    layout = layout_of(shared, missing, rng.choice(size.source_rows, size.shared, replace=False))
    source, helper = (open_tensors(folder / name)["table"] for name in ("source", "helper"))
    return TableInputs(source, helper, layout, single_device_mesh(), seed=0)


def write_inputs(size: Size, folder: Path) -> None:
    """Write the checkpoints, and the fields of the problem that they make."""
    rng = np.random.default_rng(0)
    for name, rows, dim in (
        ("source", size.source_rows, size.source_dim),
        ("helper", size.shared + size.missing, size.helper_dim),
    ):
        (folder / name).mkdir()
        write_tensors(folder / name, {"table": LazyTensor.of(random_table(rng, rows, dim))})
    problem = open_inputs(size, folder).helper_rows().problem
    for name in FIELDS:
        np.save(folder / f"{name}.npy", getattr(problem, name))


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
    """A method of the package, from NumPy tables to NumPy rows."""
    return lambda problem: lambda: METHODS[name].method(problem).rows


METHOD_NAMES = "clp", "ridge", "procrustes", "clp-topk", "clp-sparse", "omp"
PARTS = {
    "products": ("two matrix products alone", products),
    "dense": ("all similarities times the rows alone", dense),
    **{name: (name, method(name)) for name in METHOD_NAMES},
    "loop": (f"clp as a loop over tokens, from {LOOP_ROWS} of them", loop),
}
STAGE = "stage"
PEERS = "langsfer", "deepfocus"
OURS = {"loop": "clp", "langsfer": "clp", "deepfocus": "clp-sparse"}
"""Which of our methods does the same."""


def prepare_part(name: str, folder: Path) -> Callable[[], float]:
    tables = (np.load(folder / f"{field}.npy") for field in FIELDS)
    problem = Problem(*tables, mesh=single_device_mesh(), seed=0)
    return partial(fastest, PARTS[name][1](problem))


def stage(size: Size, folder: Path) -> None:
    """Clp from checkpoints on disk to a checkpoint on disk: read, hash, compile, combine, write."""
    inputs = open_inputs(size, folder)
    predictions = Predictions(clp, inputs.helper_rows(), inputs.layout)
    table = new_table(predictions, inputs.source, source_weight=1, match_spread=False)
    (folder / "new").mkdir()
    write_tensors(folder / "new", {"table": LazyTensor.of(table.rows)})


def measure_part(
    name: str, size: Size, folder: Path, options: argparse.Namespace
) -> tuple[str, float, int]:
    """What was measured, its seconds, and bytes beyond its inputs."""
    if name == STAGE:
        found = in_a_process(stage, size, folder)
        text = "clp from disk to disk, with reading, hashes and compilation"
        return text, found.seconds, found.peak
    if name in PEERS:
        rows = options.peer_rows or size.missing
        arguments = (options.peer_python, "transfer_peers.py", name, folder, "--rows", rows)
        peer, peak = measure_script(*arguments)
        part = f", from {peer['rows']:,} rows" if options.peer_rows else ""
        return f"{name} {peer['version']}{part}", peer["seconds"], peak
    found = measure(prepare_part, name, folder)
    all_rows = size.missing / LOOP_ROWS if name == "loop" else 1
    return PARTS[name][0], found.result * all_rows, found.peak


def rows_of(size: Size, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Each part, with its ratios to the products and to ours where those are measured already."""
    found: dict[str | None, float] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        in_a_process(write_inputs, size, folder)
        for name in options.only:
            if name in PEERS and not options.peer_python:
                continue
            text, found[name], peak = measure_part(name, size, folder, options)
            others = [found.get(other) for other in ("products", "dense", OURS.get(name))]
            ratios = (f"{found[name] / other:.2f}" if other else "-" for other in others)
            yield text, f"{found[name]:.2f}", *ratios, gib(peak)


def main() -> None:
    names = [*PARTS, STAGE, *PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["gpt2-xl", "bloom-7b1"])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="folder for the tables")
    parser.add_argument("--peer-python", help="interpreter with langsfer and deepfocus")
    parser.add_argument("--peer-rows", type=int, help="peers compute only this many rows")
    options = parser.parse_args()
    print_machine("numpy")
    headers = "what", "seconds", "to the two products", "to all similarities", "to ours"
    for name in options.sizes:
        size = SIZES[name]
        print(
            f"{name}: {size.shared:,} shared and {size.missing:,} missing tokens, "
            f"helper {size.helper_dim:,} wide, source {size.source_rows:,} x {size.source_dim:,}.\n"
        )
        print_table((*headers, "GiB beyond the inputs"), rows_of(size, options))
        print()


if __name__ == "__main__":
    main()
