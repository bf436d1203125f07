"""Memory of a new table beyond its inputs, method by method, in sizes of that table.

    python scripts/benchmarks/transfer_memory.py --vocabulary 131072 --width 2048

Half of the target's tokens are shared, the helper is 768 wide, tables are random and in memory. A
shared row is part the source's and part the method's and spreads are matched, which takes the most.
Each method is measured in a process of its own, after a tiny table by the same method.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from harness import gib, measure, print_machine, print_table
from transfer import layout_of, random_table

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.anchors import AnchorFeatures, TableInputs
from clp_jax.transfer.compose import Predictions, new_table
from clp_jax.transfer.methods import METHODS

HELPER_DIM = 768
NAMES = "random", "mean", "clp", "clp-sparse", "clp-topk", "ridge", "procrustes", "omp"


def make_inputs(vocabulary: int, width: int) -> TableInputs:
    """The tables that a method starts from, and nothing else."""
    rng, shared = np.random.default_rng(0), vocabulary // 2
    ids = np.arange(vocabulary)
    layout = layout_of(ids[:shared], ids[shared:], ids[:shared])
    tables = (random_table(rng, *shape) for shape in ((shared, width), (vocabulary, HELPER_DIM)))
    inputs = TableInputs(*map(LazyTensor.of, tables), layout, single_device_mesh(), seed=0)
    _ = inputs.source, inputs.helper
    inputs.source_tensor = inputs.helper_tensor = LazyTensor.of(np.empty((0, width), np.float32))
    return inputs


def compute(name: str, inputs: TableInputs) -> None:
    entry = METHODS[name]
    basis: AnchorFeatures = getattr(inputs, entry.basis)()
    predictions = Predictions(entry.method, basis, inputs.layout)
    new_table(predictions, inputs.source, source_weight=0.25, match_spread=True)


def prepare(name: str, vocabulary: int, width: int) -> Callable[[], None]:
    compute(name, make_inputs(1024, 64))
    return partial(compute, name, make_inputs(vocabulary, width))


def rows_of(options: argparse.Namespace, size: int) -> Iterator[tuple[str, ...]]:
    for name in options.methods:
        found = measure(prepare, name, options.vocabulary, options.width)
        yield name, f"{found.seconds:.1f}", gib(found.peak), f"{found.peak / size:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=131_072)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES, metavar="METHOD")
    options = parser.parse_args()
    size = 4 * options.vocabulary * options.width
    print_machine("numpy")
    print(f"{options.vocabulary:,} x {options.width:,}, {gib(size)} GiB\n")
    headers = "method", "seconds", "GiB beyond the inputs", "new tables"
    print_table(headers, rows_of(options, size))


if __name__ == "__main__":
    main()
