"""Time and memory of the transfer, against its two bare matrix products and the naive loop.

    python scripts/bench_transfer.py

The default sizes are those of BLOOM-7b1 (250,880 x 4,096) moved to a German vocabulary of 50,257
tokens by a helper of GPT-2 XL's width (1,600). It needs 5 GB of disk and 7 GB of memory, writes
random tables to --scratch, measures each part in a process of its own and prints Markdown tables.
"""

import argparse
import datetime
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from clp_jax.checkpoint.tensors import LazyTensor, open_tensors, write_tensors
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer import clp, topk
from clp_jax.transfer.rows import matmul
from clp_jax.transfer.table import new_table
from clp_jax.vocabulary import match_vocabularies

REPEATS = 3
LOOP_ROWS = 20


def sizes() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source-rows", type=int, default=250_880)
    parser.add_argument("--source-dim", type=int, default=4096)
    parser.add_argument("--target-rows", type=int, default=50_257)
    parser.add_argument("--helper-dim", type=int, default=1600)
    parser.add_argument("--shared", type=int, default=24_000)
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="folder for the tables")
    return parser.parse_args()


def write_inputs(size: argparse.Namespace, folder: Path) -> None:
    """Random tables whose rows have a common mean, as those of large models do."""
    rng = np.random.default_rng(0)
    for name, shape in (
        ("source", (size.source_rows, size.source_dim)),
        ("helper", (size.target_rows, size.helper_dim)),
    ):
        table = rng.standard_normal(shape, np.float32)
        table += rng.standard_normal(shape[1], np.float32)
        (folder / name).mkdir()
        write_tensors(folder / name, {"table": LazyTensor.of(table)})


def overlap_of(size: argparse.Namespace):
    """The first ids of the source in a shuffled order, then tokens that it lacks, shuffled in."""
    rng = np.random.default_rng(1)
    source = {str(id): id for id in range(size.source_rows)}
    known = rng.choice(size.source_rows, size.shared, replace=False)
    names = [*map(str, known), *(f"new {i}" for i in range(size.target_rows - size.shared))]
    target = dict(zip(names, rng.permutation(size.target_rows).tolist(), strict=True))
    return match_vocabularies(source, target)


def measure_transfer(size: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The product's own path: tables on disk in, new table in memory out, compilation included."""
    overlap = overlap_of(size)
    source, helper = (open_tensors(folder / name)["table"] for name in ("source", "helper"))
    mesh = single_device_mesh()
    start = time.perf_counter()
    table = new_table(source, helper, overlap, strict=False, mesh=mesh)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "inputs_and_output": source.nbytes + helper.nbytes + table.rows.nbytes,
        "fallback": len(table.origins["fallback"]),
    }


def fastest(function, *arrays) -> float:
    """Seconds of the fastest of some runs, after one that compiles."""
    jax.block_until_ready(function(*arrays))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        times.append(time.perf_counter() - start)
    return min(times)


@jax.jit
def two_products(missing, overlap_helper, overlap_source):
    return matmul(missing, matmul(overlap_helper.T, overlap_source))


def naive_loop(missing, overlap_helper, overlap_source) -> None:
    """The paper's sum as it is written: for each token all cosines, then the weighted mean."""
    norms = np.linalg.norm(overlap_helper, axis=1)
    for row in missing:
        weights = overlap_helper @ row / norms / np.linalg.norm(row)
        weights @ overlap_source / weights.sum()


def measure_mathematics(size: argparse.Namespace, _: Path) -> dict[str, float]:
    """The formula on arrays in memory, compiled before."""
    rng = np.random.default_rng(0)
    missing, shared = size.target_rows - size.shared, size.shared
    shapes = (missing, size.helper_dim), (shared, size.helper_dim), (shared, size.source_dim)
    host = [rng.standard_normal(shape, np.float32) + 0.5 for shape in shapes]
    mesh = single_device_mesh()
    tables = [jax.device_put(jnp.asarray(table), mesh.devices.item()) for table in host]
    start = time.perf_counter()
    naive_loop(host[0][:LOOP_ROWS], *host[1:])
    loop = (time.perf_counter() - start) * missing / LOOP_ROWS
    return {
        "two_products": fastest(two_products, *tables),
        "closed_form": fastest(lambda *t: clp.closed_form(*t, shared), *tables),
        "naive_loop": loop,
        "topk": fastest(lambda m, *t: topk.nearest_mean(m[:1024], *t, mesh=mesh), *tables),
    }


def in_a_process(function, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    size = sizes()
    with tempfile.TemporaryDirectory(dir=size.scratch) as folder:
        in_a_process(write_inputs, size, Path(folder))
        transfer = in_a_process(measure_transfer, size, Path(folder))
    maths = in_a_process(measure_mathematics, size, Path(folder))
    bare = maths["two_products"]
    rows = [
        ("two matrix products alone", bare),
        ("closed form with its conditioning", maths["closed_form"]),
        ("whole transfer: read, hash, combine, assemble, compile", transfer["seconds"]),
        (f"per-token loop, NumPy, from {LOOP_ROWS} rows", maths["naive_loop"]),
        ("top-k softmax of 1,024 rows", maths["topk"]),
    ]
    gib = 2**30
    missing = size.target_rows - size.shared
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy"))
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores of {platform.machine()}, "
        f"{versions}; source {size.source_rows:,} x {size.source_dim:,}, helper "
        f"{size.target_rows:,} x {size.helper_dim:,}, {size.shared:,} shared and {missing:,} "
        f"missing tokens, {transfer['fallback']} of them by the fallback\n"
    )
    print(
        markdown_table(
            ("what", "seconds", "to the products"),
            [(what, f"{seconds:.2f}", f"{seconds / bare:.2f}") for what, seconds in rows],
        )
    )
    print()
    print(
        markdown_table(
            ("memory of the whole transfer", "GiB"),
            [
                ("two inputs and the output", f"{transfer['inputs_and_output'] / gib:.2f}"),
                ("peak of the process, its libraries included", f"{transfer['peak'] / gib:.2f}"),
            ],
        )
    )


if __name__ == "__main__":
    main()
