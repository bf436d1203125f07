"""A page in Markdown; its plots are files next to it."""

import re
from collections.abc import Iterator, Sequence

from clp_jax.pages.blocks import Plot, Section, Table, Texts, Verbatim
from clp_jax.terminal import LINES, visible


def render_markdown(title: str, sections: Sequence[Section]) -> str:
    """The Markdown page; its only markup is headings, tables, fences and pictures.

    Args:
        title: Its title.
        sections: Its content.
    """
    return f"# {_inline(title)}\n\n{render_sections(sections)}"


def render_sections(sections: Sequence[Section]) -> str:
    """Sections of a Markdown page, without its title."""
    blocks: list[str] = []
    for section in sections:
        blocks.append(f"## {_inline(section.title)}")
        for block in section.blocks:
            match block:
                case Table():
                    blocks.append("\n".join(_table(block)))
                case Verbatim():
                    blocks.append(_fenced(block.text))
                case Texts():
                    for name, text in block.by_name:
                        blocks += [f"{_inline(name)}:", _fenced(text)]
                case str():
                    blocks.append(_inline(block))
                case Plot(file=file):
                    blocks += [f"![{_inline(block.text)}]({file})"] if file else []
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
