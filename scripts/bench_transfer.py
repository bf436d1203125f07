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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers.models import WordLevel

from clp_jax.checkpoint.tensors import LazyTensor, open_tensors, write_tensors
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import replicated, single_device_mesh
from clp_jax.transfer import clp, topk
from clp_jax.transfer.rows import matmul
from clp_jax.transfer.table import new_table
from clp_jax.vocabulary import Token, Vocabulary, match_vocabularies
from clp_jax.vocabulary.alphabets import PlainAlphabet

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
    source = [str(id) for id in range(size.source_rows)]
    known = rng.choice(size.source_rows, size.shared, replace=False)
    names = [*map(str, known), *(f"new {i}" for i in range(size.target_rows - size.shared))]
    target = [names[i] for i in rng.permutation(size.target_rows)]
    return match_vocabularies(words(source), words(target))


def words(names: list[str]) -> Vocabulary:
    """A vocabulary of whole words with the ids 0, 1, ..."""
    return Vocabulary(
        tokens={id: Token(name.encode()) for id, name in enumerate(names)},
        names=dict(enumerate(names)),
        added=frozenset(),
        byte_ids={},
        alphabet=PlainAlphabet(),
        model=WordLevel(),
    )


def timed(function, *arguments):
    """What the function returns, and its seconds by the clock and of the processor's cores."""
    clock, cores = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*arguments))
    return result, (time.perf_counter() - clock, time.process_time() - cores)


def fastest(function, *arguments) -> tuple[float, float]:
    """Seconds of the fastest of some runs, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    runs = [timed(function, *arguments)[1] for _ in range(REPEATS)]
    return min(clock for clock, _ in runs), min(cores for _, cores in runs)


def measure_transfer(size: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The product's own path: tables on disk in, new table in memory out, compilation included."""
    overlap = overlap_of(size)
    source, helper = (open_tensors(folder / name)["table"] for name in ("source", "helper"))
    make_table = partial(new_table, strict=False, mesh=single_device_mesh())
    table, seconds = timed(make_table, source, helper, overlap)
    return {
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "inputs_and_output": source.nbytes + helper.nbytes + table.rows.nbytes,
        "fallback": len(table.origins["fallback"]),
    }


@jax.jit
def two_products(missing, overlap_helper, overlap_source):
    return matmul(missing, matmul(overlap_helper.T, overlap_source))


def naive_loop(missing, overlap_helper, overlap_source) -> None:
    """The paper's sum as it is written: for each token all cosines, then the weighted mean."""
    norms = np.linalg.norm(overlap_helper, axis=1)
    for row in missing:
        weights = overlap_helper @ row / norms / np.linalg.norm(row)
        weights @ overlap_source / weights.sum()


def measure_mathematics(size: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """The formula on arrays in memory, compiled before."""
    rng = np.random.default_rng(0)
    missing, shared = size.target_rows - size.shared, size.shared
    shapes = (missing, size.helper_dim), (shared, size.helper_dim), (shared, size.source_dim)
    host = [rng.standard_normal(shape, np.float32) + 0.5 for shape in shapes]
    mesh = single_device_mesh()
    tables = [jax.device_put(table, replicated(mesh)) for table in host]
    part = timed(naive_loop, host[0][:LOOP_ROWS], *host[1:])[1]
    return {
        "two_products": fastest(two_products, *tables),
        "closed_form": fastest(lambda *t: clp.closed_form(*t, shared), *tables),
        "combine": fastest(lambda *t: clp.combine(*t, mesh), *host),
        "naive_loop": tuple(seconds * missing / LOOP_ROWS for seconds in part),
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
    maths = in_a_process(measure_mathematics, size)
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores of {platform.machine()}, "
        f"jax {version('jax')}, numpy {version('numpy')}; "
        f"source {size.source_rows:,} x {size.source_dim:,}, "
        f"helper {size.target_rows:,} x {size.helper_dim:,}; {size.shared:,} shared and "
        f"{size.target_rows - size.shared:,} missing tokens, {transfer['fallback']:,} of them by "
        "the fallback.\n"
    )
    parts = {
        "two matrix products alone": maths["two_products"],
        "closed form with its conditioning": maths["closed_form"],
        "the same from and to NumPy tables": maths["combine"],
        "whole transfer: read, hash, compile, combine, assemble": transfer["seconds"],
        f"loop over tokens in NumPy, from {LOOP_ROWS} of them": maths["naive_loop"],
        "top-k softmax of 1,024 rows": maths["topk"],
    }
    bare = maths["two_products"]
    print(
        markdown_table(
            ("what", "seconds", "to the products", "core seconds", "to the products"),
            [
                (what, *(f"{x:.2f}" for t, b in zip(times, bare, strict=False) for x in (t, t / b)))
                for what, times in parts.items()
            ],
        )
    )
    memory = {
        "two inputs and the output": transfer["inputs_and_output"],
        "peak of the whole transfer, Python and its libraries included": transfer["peak"],
    }
    rows = [(what, f"{size / 2**30:.2f}") for what, size in memory.items()]
    print(f"\n{markdown_table(('memory', 'GiB'), rows)}")


if __name__ == "__main__":
    main()
