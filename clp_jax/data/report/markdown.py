"""The report in Markdown, without plots."""

import re
from collections.abc import Iterator, Sequence

from clp_jax.data.report.content import Plot, Section, Table, Verbatim
from clp_jax.data.report.screen import LINES, visible


def render_markdown(sections: Sequence[Section]) -> str:
    """The Markdown page; its only markup is headings, tables and fences."""
    blocks = ["# Corpus report"]
    for section in sections:
        blocks.append(f"## {_inline(section.title)}")
        for block in section.blocks:
            match block:
                case Table():
                    blocks.append("\n".join(_table(block)))
                case Verbatim():
                    blocks.append(_fenced(block.text))
                case str():
                    blocks.append(_inline(block))
                case Plot():
                    pass
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> Iterator[str]:
    rule = ["--:" if numeric else "---" for numeric in table.numeric]
    for cells in (map(_inline, table.headers), rule, *(map(_inline, row) for row in table.rows)):
        yield f"| {' | '.join(cells)} |"


def _inline(text: str) -> str:
    """Escape the characters that start inline markup."""
    return re.sub(r"([\\`*_\[\]<>&|~$#])", r"\\\1", visible(text))


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{visible(text, kept=LINES).rstrip()}\n{fence}"
