"""Memory of a new table beyond its inputs, method by method, in sizes of that table.

    python scripts/bench_transfer_memory.py --vocabulary 131072 --width 2048

Half of the target's tokens are shared, the helper is 768 wide, tables are random and in memory. Of
a shared row a share is the method's and norms are matched, which takes the most. Each method is
measured in a process of its own, after a tiny table by the same method.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from bench_transfer import Measured, describe_machine, in_a_process
from bench_transfer_tables import random_table

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.anchors import AnchorFeatures, TableInputs
from clp_jax.transfer.compose import new_table
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.table import Layout

HELPER_DIM = 768
NAMES = "random", "mean", "clp", "clp-sparse", "clp-topk", "ridge", "procrustes", "omp"


def make_inputs(vocabulary: int, width: int) -> TableInputs:
    """The tables that a method starts from, and nothing else."""
    rng, shared = np.random.default_rng(0), vocabulary // 2
    ids, none = np.arange(vocabulary), np.arange(0)
    layout = Layout(
        rows=vocabulary,
        copied_source=ids[:shared],
        copied=ids[:shared],
        anchors=shared,
        anchor_helper=ids[:shared],
        roles=none,
        missing=ids[shared:],
        missing_helper=ids[shared:],
        padding=none,
        keeps=False,
    )
    tables = (random_table(rng, *shape) for shape in ((shared, width), (vocabulary, HELPER_DIM)))
    inputs = TableInputs(*map(LazyTensor.of, tables), layout, single_device_mesh(), seed=0)
    _ = inputs.source, inputs.helper
    inputs.source_tensor = inputs.helper_tensor = LazyTensor.of(np.empty((0, width), np.float32))
    return inputs


def measure(name: str, vocabulary: int, width: int) -> Measured:
    compute(name, make_inputs(1024, 64))
    inputs = make_inputs(vocabulary, width)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of making the inputs
    before, clock = peak(), time.perf_counter()
    compute(name, inputs)
    return Measured(time.perf_counter() - clock, peak() - before)


def peak() -> int:
    """The most memory that was resident, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def compute(name: str, inputs: TableInputs) -> None:
    entry = METHODS[name]
    basis: AnchorFeatures = getattr(inputs, entry.basis)()
    new_table(
        entry.method, basis, inputs.source, inputs.layout, source_weight=0.25, match_spread=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=131_072)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES, metavar="METHOD")
    options = parser.parse_args()
    size = 4 * options.vocabulary * options.width
    print(describe_machine())
    print(f"\n{options.vocabulary:,} x {options.width:,}, {size / 2**30:.2f} GiB\n")
    rows = []
    for name in options.methods:
        found = in_a_process(measure, name, options.vocabulary, options.width)
        gib = f"{found.peak / 2**30:.2f}"
        rows.append((name, f"{found.seconds:.1f}", gib, f"{found.peak / size:.2f}"))
    print(markdown_table(("method", "seconds", "GiB beyond the inputs", "new tables"), rows))


if __name__ == "__main__":
    main()
