"""Pages for readers: written once as blocks, and rendered as HTML and as Markdown.

Their text may come from anywhere, so all of it is escaped.
"""

from clp_jax.pages.blocks import Plot, Section, Table, Texts, Verbatim
from clp_jax.pages.html import render_html
from clp_jax.pages.markdown import render_markdown

__all__ = ["Plot", "Section", "Table", "Texts", "Verbatim", "render_html", "render_markdown"]
