"""The plot of a training run: perplexity over tokens, and what can be read off it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    if empty := [name for name, curve in curves.items() if not curve]:
        raise ValueError(f"no points to plot for {', '.join(empty)}")
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_yscale("log")
    for number, curve in enumerate(curves.values()):
        tokens, perplexities = zip(*curve, strict=True)
        marker = "o" if len(curve) <= 20 else ""
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(tokens, perplexities, color=colour, marker=marker, markersize=4, linewidth=2)
    _decorate(axes, title)
    _label_ends(axes, curves)
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


def _decorate(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("training tokens")
    axes.set_ylabel("validation perplexity (log scale)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _label_ends(axes: Axes, curves: Mapping[str, Curve]) -> None:
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
            color=COLOURS[list(curves).index(name) % len(COLOURS)],
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
