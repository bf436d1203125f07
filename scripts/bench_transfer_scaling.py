"""Cost of the transfer against the size of the vocabulary and against the width of the source.

    python scripts/bench_transfer_scaling.py

Half of the target's tokens are shared; the helper is 768 wide. Each point is measured in a process
of its own, on random tables in memory. Prints a Markdown table and draws the plot.
"""

import argparse
from pathlib import Path

import numpy as np
from bench_transfer import Measured, describe_machine, in_a_process, measure, method, products
from bench_transfer_tables import random_table
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from clp_jax.evaluate.tables import markdown_table
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.interface import Problem

HELPER_DIM = 768
WIDTH = 1024
VOCABULARY = 64 * 1024
VOCABULARIES = [(count * 1024, WIDTH) for count in (32, 64, 128, 256)]
WIDTHS = [(VOCABULARY, width) for width in (1024, 2048, 4096, 8192)]
CORNER = 256 * 1024, 8192
MEASURED = {
    "two products": products,
    "clp": method("clp"),
    "ridge": method("ridge"),
}
PLOT = Path(__file__).parents[1] / "docs" / "images" / "transfer-scaling.png"

Point = tuple[int, int]
Results = dict[Point, dict[str, Measured]]


def measure_point(name: str, vocabulary: int, width: int) -> Measured:
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
    return measure(MEASURED[name](problem))


def tables_size(vocabulary: int, width: int) -> int:
    """Bytes of inputs and output."""
    return 4 * vocabulary * (HELPER_DIM + width)


def available_memory() -> int:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(fields["MemAvailable"].split()[0])


def table_of(results: Results) -> str:
    rows = [
        (
            f"{vocabulary:,}",
            f"{width:,}",
            name,
            f"{measured.seconds:.2f}",
            f"{measured.seconds / found['two products'].seconds:.2f}",
            f"{measured.peak / 2**30:.2f}",
            f"{tables_size(vocabulary, width) / 2**30:.2f}",
        )
        for (vocabulary, width), found in results.items()
        for name, measured in found.items()
    ]
    headers = "vocabulary", "width", "what", "seconds", "to the two products"
    return markdown_table((*headers, "GiB beyond the inputs", "GiB of inputs and output"), rows)


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
            seconds = [results[point][name].seconds for point in points]
            axes.loglog(ticks, seconds, "--" if name == "two products" else "-o", label=name)
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
    print(describe_machine(), end="\n\n")
    results: Results = {
        point: {name: in_a_process(measure_point, name, *point) for name in MEASURED}
        for point in dict.fromkeys(VOCABULARIES + WIDTHS)
    }
    draw(results, options.out)
    # The tables, which the device may hold once more, and room for the rest.
    needed, free = 2 * tables_size(*CORNER) + 2**30, available_memory()
    if needed <= free:
        names = "two products", "clp"
        results[CORNER] = {name: in_a_process(measure_point, name, *CORNER) for name in names}
    print(table_of(results))
    if needed > free:
        print(
            f"\n{CORNER[0]:,} x {CORNER[1]:,} was left out: it needs {needed / 2**30:.0f} GiB, "
            f"and {free / 2**30:.0f} GiB are free."
        )


if __name__ == "__main__":
    main()
