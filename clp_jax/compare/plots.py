"""The plots of a comparison, each for light pages, for dark pages and as a PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from clp_jax.evaluate.plots import COLOURS
from clp_jax.results import TaskScore

LIGHT, DARK = ("#1c1e21", "#e2e4e7"), ("#e4e6e9", "#34383d")
"""Colours of text and of grid lines."""


@dataclass(frozen=True)
class Drawing:
    """A plot, ready for files.

    Attributes:
        svg: for light pages, without a background.
        dark: the same for dark pages.
        png: on white.
    """

    svg: bytes
    dark: bytes
    png: bytes


class Line(NamedTuple):
    """A curve of one run.

    Attributes:
        label: whose it is; runs of one label have one colour.
        points: the coordinates.
    """

    label: str
    points: Sequence[tuple[int | float, float]]


def draw_curves(lines: Sequence[Line], title: str, below: str) -> Drawing:
    """Bits per byte of several runs over what training has cost.

    Args:
        lines: the curves, each with points.
        title: what the values are of.
        below: the name of the cost.
    """
    labels = [*dict.fromkeys(line.label for line in lines)]

    def draw(axes: Axes, colours: Sequence[str]) -> None:
        named: set[str] = set()
        for label, points in lines:
            axes.plot(
                *zip(*points, strict=True),
                color=colours[labels.index(label) % len(colours)],
                linewidth=2,
                marker="o" if len(points) <= 20 else "",
                markersize=4,
                label=None if label in named else label,
            )
            named.add(label)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel(below)
        axes.set_ylabel("bits per byte")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.legend(frameon=False)

    return _drawing(draw, (6.0, 4.0))


def draw_tasks(
    scores: Mapping[str, Sequence[TaskScore]], rows: Sequence[tuple[str, str]]
) -> Drawing:
    """Scores with their 95% intervals by task; bars show what guessing scores.

    Args:
        scores: of each model by its label.
        rows: the tasks and metrics to show, from top to bottom.
    """
    step = 0.7 / max(1, len(scores))

    def draw(axes: Axes, colours: Sequence[str]) -> None:
        for number, (label, found) in enumerate(scores.items()):
            by_row = {(score.task, score.metric): score for score in found}
            shown = [(place, by_row[row]) for place, row in enumerate(rows) if row in by_row]
            places = [place + (number + 0.5) * step - 0.35 for place, _ in shown]
            values = [score.score for _, score in shown]
            ends = [
                (0.0, 0.0) if score.low is None or score.high is None
                else (max(0.0, score.score - score.low), max(0.0, score.high - score.score))
                for _, score in shown
            ]  # fmt: skip
            colour = colours[number % len(colours)]
            axes.errorbar(
                values, places, xerr=[*zip(*ends, strict=True)] or None, fmt="o", color=colour,
                markersize=5, linewidth=1.8, label=label,
            )  # fmt: skip
        for place, row in enumerate(rows):
            guesses = [
                value
                for found in scores.values()
                for score in found
                if (score.task, score.metric) == row
                for value in (score.random, score.majority)
                if value is not None
            ]
            if guesses:
                axes.barh(place, max(guesses), height=0.85, color="#888888", alpha=0.22, zorder=0)
        axes.set_yticks(range(len(rows)), [f"{task}\n{metric}" for task, metric in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("score with its 95% interval; grey: what guessing reaches")
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    return _drawing(draw, (8.0, 1.4 + len(rows) * (0.35 + 0.15 * len(scores))))


def _drawing(draw: Callable[[Axes, Sequence[str]], None], size: tuple[float, float]) -> Drawing:
    with _style(LIGHT):
        light = _figure(draw, size, LIGHT)
        svg, png = _saved(light, "svg"), _saved(light, "png", facecolor="white")
    with _style(DARK):
        return Drawing(svg, _saved(_figure(draw, size, DARK), "svg"), png)


def _style(colours: tuple[str, str]) -> AbstractContextManager[None]:
    """Settings under which a figure has these colours, no background and always the same bytes."""
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    clear = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    style: Any = dict.fromkeys(ink, colours[0]) | dict.fromkeys(clear, "none")
    return matplotlib.rc_context(style | {"svg.hashsalt": "clp_jax"})


def _figure(
    draw: Callable[[Axes, Sequence[str]], None], size: tuple[float, float], colours: tuple[str, str]
) -> Figure:
    ink, grid = colours
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(color=grid, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes, [ink if colour == "#000000" else colour for colour in COLOURS])
    return figure


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(file, format=kind, metadata=metadata, **options)
    return file.getvalue()
