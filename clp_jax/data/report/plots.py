"""The plots of the report, as PNG files."""

import io
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOUR = "#0072B2"
COUNT = "{x:,.0f}"


def plot_lengths(edges: Sequence[int], documents: Sequence[int]) -> bytes:
    """A histogram of documents by number of tokens.

    Args:
        edges: Edges of the bins, ascending from 1; one more than the bins.
        documents: Documents in each bin; one on an edge counts in the bin above.
    """
    figure, axes = _axes(height=3.5, grid="both")
    axes.stairs(documents, edges, fill=True, color=COLOUR)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(COUNT)
    axes.yaxis.set_major_formatter(COUNT)
    axes.set_xlabel("tokens per document (log scale)")
    axes.set_ylabel("documents")
    return _png(figure)


def plot_steps(names: Sequence[str], documents: Sequence[int]) -> bytes:
    """A bar chart of the documents left after each step.

    Args:
        names: Names of the steps, in order.
        documents: Documents that reach each step, and finally those that are kept.
    """
    figure, axes = _axes(height=1 + 0.3 * len(documents), grid="x")
    bars = axes.barh(range(len(documents)), documents, color=COLOUR)
    axes.bar_label(bars, [f"{count:,}" for count in documents], padding=3)
    axes.set_yticks(range(len(documents)), ["read", *names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(COUNT)
    axes.set_xlabel("documents left after the step")
    return _png(figure)


def _axes(height: float, grid: Literal["both", "x"]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
