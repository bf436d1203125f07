"""What a person wants to see of a corpus: where its text went, on one page.

`content` says what is on the page, `markdown` and `html` write it down, `screen` is the short form
for the command line. All of it is made from the corpus's manifest and from samples of the documents
that were dropped: text of the web, which nobody has checked and which is never given through as
markup.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clp_jax.data.report.content import Sample, describe
from clp_jax.data.report.html import render_html
from clp_jax.data.report.markdown import render_markdown
from clp_jax.data.report.screen import summary
from clp_jax.files import new_file

__all__ = ["summary", "write_report"]


def write_report(
    folder: Path, manifest: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]
) -> None:
    """Write ``report.md`` and ``report.html`` into the folder of a corpus.

    The same page twice; the HTML has plots too, and needs no other file and no network.

    Args:
        folder: The folder; reports that it holds are replaced.
        manifest: The corpus's manifest, as `clp_jax.prepare_corpus` returns it.
        samples: Dropped documents by the name of the step that dropped them, each with its ``id``,
            ``reason`` and ``text``. Three of each reason are shown, and eight reasons of a step.
    """
    sections = describe(manifest, samples)
    pages = {"report.md": render_markdown(sections), "report.html": render_html(sections)}
    for name, page in pages.items():
        with new_file(folder / name) as scratch:
            scratch.write_text(page, "utf-8")
