"""A page as one HTML file, without scripts or external resources, on light and dark screens."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from itertools import groupby

from clp_jax.pages.blocks import Block, Plot, Section, Table, Texts, Verbatim
from clp_jax.terminal import LINES, visible

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1c1e21; --quiet: #62676d; --line: #e2e4e7; --panel: #f6f7f8; --page: #fff }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e6e9; --quiet: #9aa0a6; --line: #34383d; --panel: #202327; --page: #16181b }}
}}
* {{ box-sizing: border-box }}
body {{ font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 66rem; margin: 0 auto; padding: 2rem 1rem 4rem }}
h1 {{ font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.5rem }}
h2 {{ font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line) }}
p {{ max-width: 44rem; margin: .75rem 0 }}
.table {{ overflow-x: auto; margin: 1rem 0 }}
table {{ border-collapse: collapse; font-size: .9rem; min-width: 50% }}
th, td {{ padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; white-space: nowrap }}
th {{ color: var(--quiet); font-weight: 600 }}
.number {{ text-align: right; font-variant-numeric: tabular-nums }}
pre, figure {{ background: var(--panel); padding: .75rem; border-radius: .4rem; margin: 1rem 0 }}
pre {{ font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere }}
.plots, .texts {{ display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)) }}
.texts {{ grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)) }}
figure {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .95rem }}
figcaption {{ color: var(--quiet); font-size: .85rem; font-weight: 600; margin-bottom: .3rem }}
img {{ display: block; width: 100%; max-width: 52rem; height: auto }}
</style>
</head>
<body>
<h1>{title}</h1>
"""


def render_html(title: str, sections: Sequence[Section]) -> str:
    """The HTML page; all text is escaped.

    Args:
        title: Its title.
        sections: Its content; plots that follow one another stand side by side where there is room.
    """
    lines = [_HEAD.format(title=_text(title))]
    for section in sections:
        lines.append(f"<h2>{_text(section.title)}</h2>")
        for plots, blocks in groupby(section.blocks, lambda block: isinstance(block, Plot)):
            shown = [_block(block) for block in blocks]
            lines += ['<div class="plots">', *shown, "</div>"] if plots else shown
    return "\n".join([*lines, "</body>", "</html>", ""])


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Plot():
            return _picture(block)
        case Verbatim():
            return f"<pre>{_text(block.text, LINES)}</pre>"
        case Texts():
            figures = (
                f"<figure><figcaption>{_text(name)}</figcaption>{_text(text, LINES)}</figure>"
                for name, text in block.by_name
            )
            return "\n".join(['<div class="texts">', *figures, "</div>"])
        case str():
            return f"<p>{_text(block)}</p>"


def _picture(plot: Plot) -> str:
    image = f'<img src="{_data(plot.picture)}" alt="{_text(plot.text)}">'
    if not plot.dark:
        return image
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(plot.dark)}">'
    return f"<picture>{dark}{image}</picture>"


def _data(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"


def _table(table: Table) -> str:
    kinds = ["number" if numeric else "text" for numeric in table.numeric]

    def row(tag: str, cells: Sequence[str]) -> str:
        parts = [
            f'<{tag} class="{kind}">{_text(cell)}</{tag}>'
            for kind, cell in zip(kinds, cells, strict=True)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    body = [row("td", cells) for cells in table.rows]
    lines = ['<div class="table"><table>', row("th", table.headers), *body, "</table></div>"]
    return "\n".join(lines)


def _text(text: str, kept: str = "") -> str:
    return escape(visible(text, kept))
