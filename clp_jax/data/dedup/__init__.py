"""Deduplication: duplicates are found in stages over the whole corpus, then removed.

Each method divides the work among the tasks of a folder of documents and keeps what it learns of
them in sorted files, so its memory is bounded by a few tasks, not by the corpus. The result depends
on the documents and their order alone, not on the order in which tasks run.
"""

from collections.abc import Callable
from functools import partial

from clp_jax.data.config import DeduplicateSection
from clp_jax.data.dedup.exact import drop_copies
from clp_jax.data.dedup.lines import drop_lines
from clp_jax.data.dedup.near import drop_near
from clp_jax.data.dedup.substrings import cut_passages
from clp_jax.data.stages import Deduplication, Workspace


def deduplications(section: DeduplicateSection) -> dict[str, Callable[[Workspace], Deduplication]]:
    """The enabled deduplications by name, in the order in which they run.

    Lines come after documents: otherwise all lines of a page with many copies would be frequent.
    Each function takes a `Workspace`: the folder that the previous deduplication wrote, and a
    scratch folder of its own.
    """
    enabled: dict[str, Callable[[Workspace], Deduplication]] = {}
    if section.exact:
        enabled["exact"] = drop_copies
    if section.near:
        enabled["near"] = drop_near
    if section.lines:
        enabled["lines"] = partial(drop_lines, section.lines)
    if section.substrings:
        enabled["substrings"] = partial(cut_passages, section.substrings)
    return enabled
