"""What was there before is found in stages over the whole corpus, then taken out.

Each function divides the work over the tasks of a folder of documents, keeps what it knows of them
in sorted files, and needs memory for a few tasks, not for the corpus. What it finds depends on the
documents and their order alone, not on the order in which tasks run.
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
    """The deduplications that are turned on, by name, in the order in which they are done.

    Lines come after documents: else all lines of a page that is in the corpus very often would be
    frequent ones. Each function is called with a `Workspace`: the
    folder that the one before has written, and a scratch folder of its own.
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
