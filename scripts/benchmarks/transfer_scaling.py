"""Cost of the transfer against the size of the vocabulary and against the width of the source.

    python scripts/benchmarks/transfer_scaling.py

Half of the target's tokens are shared; the helper is 768 wide. Each point is measured in a process
of its own, on random tables in memory. Prints a Markdown table and draws the plot.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from harness import fastest, gib, measure, print_machine, print_table
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from transfer import method, products, random_table

from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.interface import Problem

HELPER_DIM = 768
WIDTH = 1024
VOCABULARY = 64 * 1024
VOCABULARIES = [(count * 1024, WIDTH) for count in (32, 64, 128, 256)]
WIDTHS = [(VOCABULARY, width) for width in (1024, 2048, 4096, 8192)]
CORNER = 256 * 1024, 8192
PRODUCTS = "two products"
MEASURED = {PRODUCTS: products, "clp": method("clp"), "ridge": method("ridge")}
PLOT = Path(__file__).parents[2] / "docs" / "images" / "transfer-scaling.png"

Point = tuple[int, int]
Results = dict[tuple[Point, str], float]


def prepare(name: str, vocabulary: int, width: int) -> Callable[[], float]:
    rng, shared = np.random.default_rng(0), vocabulary // 2
    helper = random_table(rng, vocabulary, HELPER_DIM)
    problem = Problem(
        queries=helper[shared:],
        anchors=helper[:shared],
        rows=random_table(rng, shared, width),
        mean=np.zeros(width, np.float32),
        std=np.ones(width, np.float32),
        mesh=single_device_mesh(),
        seed=0,
    )
    return partial(fastest, MEASURED[name](problem))


def tables_size(vocabulary: int, width: int) -> int:
    """Bytes of inputs and output."""
    return 4 * vocabulary * (HELPER_DIM + width)


def rows_of(points: list[Point], results: Results) -> Iterator[tuple[str, ...]]:
    """Measure points, and put the seconds into the results."""
    for point in points:
        for name in MEASURED:
            if point == CORNER and name == "ridge":
                continue
            found = measure(prepare, name, *point)
            results[point, name] = found.result
            yield (
                *(f"{size:,}" for size in point),
                name,
                f"{found.result:.2f}",
                f"{found.result / results[point, PRODUCTS]:.2f}",
                gib(found.peak),
                gib(tables_size(*point)),
            )


def draw(results: Results, path: Path) -> None:
    """Seconds against vocabulary and against width, the two products dashed."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, points, axis, label in (
        (left, VOCABULARIES, 0, f"vocabulary, at width {WIDTH:,}"),
        (right, WIDTHS, 1, f"width, at vocabulary {VOCABULARY:,}"),
    ):
        ticks = [point[axis] for point in points]
        for name in MEASURED:
            seconds = [results[point, name] for point in points]
            axes.loglog(ticks, seconds, "--" if name == PRODUCTS else "-o", label=name)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    left.legend()
    left.set_ylabel("time")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PLOT, help="the plot")
    options = parser.parse_args()
    print_machine("numpy")
    points = [*dict.fromkeys(VOCABULARIES + WIDTHS)]
    # The tables, which the device may hold once more, and room for the rest.
    needed, free = 2 * tables_size(*CORNER) + 2**30, psutil.virtual_memory().available
    if needed <= free:
        points.append(CORNER)
    else:
        print(f"{CORNER} is left out: it needs {gib(needed)} GiB, and {gib(free)} GiB are free.\n")
    results: Results = {}
    headers = "vocabulary", "width", "what", "seconds", "to the two products"
    headers = (*headers, "GiB beyond the inputs", "GiB of inputs and output")
    print_table(headers, rows_of(points, results))
    draw(results, options.out)


if __name__ == "__main__":
    main()
