"""The report of a corpus: one page that shows where its text went.

`content` defines the page, `clp_jax.pages` renders it, and `screen` is the short form for the
command line. The report is made from the corpus's manifest and from samples of dropped documents.
The samples are unchecked text from the web, so all of it is escaped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clp_jax.data.report.content import Sample, describe
from clp_jax.data.report.screen import summary
from clp_jax.files import new_file
from clp_jax.pages import render_html, render_markdown

__all__ = ["summary", "write_report"]


def write_report(
    folder: Path, manifest: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]
) -> None:
    """Write ``report.md`` and ``report.html`` into the folder of a corpus.

    Both hold the same page; the HTML also has plots, and needs no other file and no network.

    Args:
        folder: The folder; an existing report is replaced.
        manifest: The corpus's manifest, as `clp_jax.prepare_corpus` returns it.
        samples: Dropped documents by the name of the step that dropped them, each with its ``id``,
            ``reason`` and ``text``. Up to eight reasons per step and three samples per reason are
            shown.
    """
    sections = describe(manifest, samples)
    title = "Corpus report"
    pages = {
        "report.md": render_markdown(title, sections),
        "report.html": render_html(title, sections),
    }
    for name, page in pages.items():
        with new_file(folder / name) as scratch:
            scratch.write_text(page, "utf-8")
