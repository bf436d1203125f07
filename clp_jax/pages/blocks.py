"""What a page consists of: sections of sentences, tables, plots and texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

UNKNOWN = "–"
"""The cell of a value that is not known."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether all of its cells are numbers or unknown."""
        columns = [*zip(*self.rows, strict=True)] or [()] * len(self.headers)
        return [
            all(cell == UNKNOWN or cell.lstrip("+-<−")[:1].isdigit() for cell in column)
            for column in columns
        ]


@dataclass(frozen=True)
class Plot:
    """A picture and its description.

    Attributes:
        picture: the file's bytes, PNG or SVG.
        text: what it shows.
        dark: the picture for a dark page; empty if one serves both.
        file: where it is next to a Markdown page, which otherwise leaves it out.
    """

    picture: bytes
    text: str
    dark: bytes = b""
    file: str = ""


@dataclass(frozen=True)
class Verbatim:
    """Preformatted text."""

    text: str


@dataclass(frozen=True)
class Texts:
    """Texts by the name of who wrote them, to be read side by side."""

    by_name: Sequence[tuple[str, str]]


Block = str | Table | Plot | Verbatim | Texts
"""A part of a section; a plain string is a paragraph."""


class Section(NamedTuple):
    """A heading and the blocks under it."""

    title: str
    blocks: Sequence[Block]
