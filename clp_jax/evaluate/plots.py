"""The plot of a training run: perplexity over tokens, and what can be read off it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from clp_jax.files import new_file

# Okabe and Ito's palette, which colour-blind readers can distinguish too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Curve = Sequence[tuple[int, float]]
"""Training tokens and the perplexity measured at that point, in the order of training."""


def plot_perplexity(curves: Mapping[str, Curve], out: Path, title: str) -> None:
    """Write a PNG with one line per run: perplexity (logarithmic) over training tokens.

    Each line is labelled at its right end with its name and last perplexity.

    Raises:
        ValueError: a curve has no points.
    """
    _plot({title: curves}, out, "validation perplexity (log scale)", "log")


def plot_bits_per_byte(panels: Mapping[str, Mapping[str, Curve]], out: Path) -> None:
    """Write a PNG with bits per byte over training tokens, as `plot_perplexity` does.

    Args:
        panels: The curves by name, in panels next to each other, by title.
        out: The file.

    Raises:
        ValueError: a curve has no points.
    """
    _plot(panels, out, "held-out bits per byte", "linear")


def _plot(
    panels: Mapping[str, Mapping[str, Curve]],
    out: Path,
    label: str,
    scale: Literal["log", "linear"],
) -> None:
    lines = [item for curves in panels.values() for item in curves.items()]
    if empty := [name for name, curve in lines if not curve]:
        raise ValueError(f"no points to plot for {', '.join(empty)}")
    figure = Figure(figsize=(8 * len(panels), 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(name for name, _ in lines))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        axes.set_yscale(scale)
        for name, curve in curves.items():
            tokens, values = zip(*curve, strict=True)
            marker = "o" if len(curve) <= 20 else ""
            axes.plot(tokens, values, color=colours[name], marker=marker, markersize=4, linewidth=2)
        _decorate(axes, title, label)
        _label_ends(axes, curves, colours)
    with new_file(out) as scratch:
        figure.savefig(scratch, format="png")


def tokens_to_reach(curve: Curve, perplexity: float) -> float | None:
    """Training tokens after which a run first reaches ``perplexity``, or None if it never does.

    Between two measurements the logarithm of the perplexity is taken to be linear in the tokens.
    """
    previous: tuple[int, float] | None = None
    for tokens, value in curve:
        if value <= perplexity:
            if previous is None:
                return float(tokens)
            before, above = previous
            share = math.log(above / perplexity) / math.log(above / value)
            return before + share * (tokens - before)
        previous = (tokens, value)
    return None


def _decorate(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("training tokens")
    axes.set_ylabel(label)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _label_ends(axes: Axes, curves: Mapping[str, Curve], colours: Mapping[str, str]) -> None:
    """Label each line at its right end, moving labels apart where the ends are close."""
    line_height = 0.055
    ends = {name: curve[-1] for name, curve in curves.items()}
    to_axes = axes.transScale + axes.transLimits
    floor = -math.inf
    for name, end in sorted(ends.items(), key=lambda item: item[1][1]):
        _, height = to_axes.transform(end)
        floor = max(height, floor + line_height)
        axes.annotate(
            f"{name}  {end[1]:,.4g}",
            xy=end,
            xytext=(1.02, floor),
            textcoords=axes.transAxes,
            color=colours[name],
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
