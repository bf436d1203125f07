"""Markdown tables that are also readable as plain text."""

from collections.abc import Sequence

from clp_jax.terminal import printable


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table with aligned columns, for consoles and documents.

    A column whose cells all begin with a digit or a sign is aligned to the right.

    Args:
        headers: the names of the columns.
        rows: the cells, as many in each row as there are headers.

    Returns:
        The lines of the table, without a newline at the end.

    Raises:
        ValueError: a row has more or fewer cells than there are headers.
    """
    cells = [[printable(cell).replace("|", "\\|") for cell in row] for row in (headers, *rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    numeric = [bool(rows) and all(map(_is_numeric, column[1:])) for column in columns]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def _is_numeric(cell: str) -> bool:
    return cell.lstrip("+-")[:1].isdigit()
