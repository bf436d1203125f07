"""The pictures of curves on the site, drawn from the tables on its pages.

python scripts/figures.py    # writes docs/images/*.png
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from clp_jax.evaluate.plots import Curve, plot_perplexity

DOCS = Path(__file__).resolve().parent.parent / "docs"
METHODS = ("scratch", "random", "clp", "clp-sparse", "focus", "ridge", "auto")
"""Those of the study that are plotted."""

Table = list[list[str]]
"""The cells of a table, its headers first."""


def column_curves(table: Table) -> dict[str, Curve]:
    """Curves of a table with the tokens in its first column and a perplexity in each other one."""
    heads, *rows = table
    names = [head.split()[-1] for head in heads]
    return {
        name: [(_count(row[0]), float(row[place].replace(",", ""))) for row in rows]
        for place, name in enumerate(names)
        if place
    }


def row_curves(table: Table) -> dict[str, Curve]:
    """Curves of a table with a row per method and columns ``loss at TOKENS``, of some methods."""
    heads, *rows = table
    places = {place: _count(h.split()[-1]) for place, h in enumerate(heads) if "loss at" in h}
    losses = {row[0]: row for row in rows}
    return {
        name: [(at, math.exp(float(losses[name][i].split()[0]))) for i, at in places.items()]
        for name in METHODS
    }


class Picture(NamedTuple):
    """A picture, and the table that it shows: the first one below a heading."""

    page: str
    heading: str
    curves: Callable[[Table], dict[str, Curve]]
    title: str


PICTURES = {
    "quickstart-real.png": Picture(
        "results/quickstart.md",
        "On real text",
        column_curves,
        "Held-out perplexity: transfer against scratch, real text",
    ),
    "quickstart-made-up.png": Picture(
        "results/quickstart.md",
        "On made-up text",
        column_curves,
        "Held-out perplexity: transfer against scratch, made-up text",
    ),
    "methods.png": Picture(
        "results/methods.md",
        "Small models",
        row_curves,
        "Held-out perplexity by initialisation, small models",
    ),
}


def read_table(page: str, heading: str) -> Table:
    """The first table below a heading of a page."""
    lines = iter((DOCS / page).read_text("utf-8").splitlines())
    for line in lines:
        if line.lstrip("#") == f" {heading}":
            break
    table = list(_rows(lines))
    return [table[0], *table[2:]]


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    started = False
    for line in lines:
        if line.startswith("|"):
            started = True
            yield [cell.strip() for cell in line.strip("|").split("|")]
        elif started:
            return


def _count(text: str) -> int:
    return int(text.replace(",", ""))


if __name__ == "__main__":
    for file, picture in PICTURES.items():
        curves = picture.curves(read_table(picture.page, picture.heading))
        plot_perplexity(curves, DOCS / "images" / file, picture.title)
