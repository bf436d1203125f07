"""The report as one HTML file, without scripts or external resources."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from clp_jax.data.report.content import Plot, Section, Table, Verbatim
from clp_jax.data.report.screen import LINES, visible

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Corpus report</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
.number { text-align: right; font-variant-numeric: tabular-nums }
pre { background: #f5f5f5; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
img { max-width: 100% }
</style>
</head>
<body>
<h1>Corpus report</h1>
"""


def render_html(sections: Sequence[Section]) -> str:
    """The HTML page; all text is escaped."""
    lines = [_HEAD]
    for section in sections:
        lines.append(f"<h2>{_text(section.title)}</h2>")
        lines += map(_block, section.blocks)
    return "\n".join([*lines, "</body>", "</html>", ""])


def _block(block: str | Table | Plot | Verbatim) -> str:
    match block:
        case Table():
            return _table(block)
        case Plot():
            source = f"data:image/png;base64,{b64encode(block.png).decode()}"
            return f'<img src="{source}" alt="{_text(block.text)}">'
        case Verbatim():
            return f"<pre>{_text(block.text, LINES)}</pre>"
        case str():
            return f"<p>{_text(block)}</p>"


def _table(table: Table) -> str:
    kinds = ["number" if numeric else "text" for numeric in table.numeric]

    def row(tag: str, cells: Sequence[str]) -> str:
        parts = [
            f'<{tag} class="{kind}">{_text(cell)}</{tag}>'
            for kind, cell in zip(kinds, cells, strict=True)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    body = [row("td", cells) for cells in table.rows]
    return "\n".join(["<table>", row("th", table.headers), *body, "</table>"])


def _text(text: str, kept: str = "") -> str:
    return escape(visible(text, kept))
