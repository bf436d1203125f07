"""The last steps of a document: it is counted, then written as tokens or as text."""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.data.corpus.store import count_words, new_shard
from clp_jax.data.stages import new_documents
from clp_jax.files import read_json, write_json
from clp_jax.tokenizer import Tokenizer

HELDOUT = "heldout"
TRAIN = "train"
TEXT = "text"
KEPT, SHARDS, SAMPLES = "kept", "shards", "samples"
"""Folders for what tasks report: documents kept, tokens, dropped documents."""

_SAMPLED = 20
_SAMPLED_CHARACTERS = 5_000


def read_facts(folder: Path) -> list[dict[str, Any]]:
    """The reports of the tasks in ``folder``, in task order."""
    return [read_json(file) for file in sorted(folder.glob("*.json"))]


class Count(PipelineStep):
    """Count the documents of each source (its number starts their ids) and sample beginnings.

    The samples are from the documents with the smallest hashes, so a rerun of a task keeps the
    same ones.

    Args:
        folder: Folder for the counts of each task: per source, held out, and samples.
        heldout: Share of the documents that are held out.
    """

    type = "COUNT"
    name = "documents"

    def __init__(self, folder: Path, heldout: float):
        super().__init__()
        self.folder = folder
        self.heldout = heldout

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Count and yield each document."""
        sources: dict[str, Counter[str]] = defaultdict(Counter)
        heldout: Counter[str] = Counter()
        kept: list[tuple[int, str]] = []
        for document in data:
            text = document.text
            sizes = {
                "documents": 1,
                "words": count_words(text),
                "characters": len(text),
                "bytes": len(text.encode()),
            }
            sources[document.id.partition("/")[0]].update(sizes)
            if _split(text, self.heldout) == HELDOUT:
                heldout.update(sizes)
            kept = heapq.nsmallest(_SAMPLED, [*kept, (_hash(text), text[:_SAMPLED_CHARACTERS])])
            yield document
        facts = {"sources": sources, HELDOUT: heldout, "sample": [text for _, text in kept]}
        write_json(_facts_file(self.folder, rank), facts)


class Tokenize(PipelineStep):
    """Write the tokens of a task's documents as one shard of the corpus and one held out.

    Args:
        tokenizer: The tokenizer.
        folder: Folder of the corpus.
        facts: Folder for the facts of each task's shards.
        heldout: Share of the documents that go to the held-out corpus.
    """

    type = "WRITE"
    name = "tokens"

    def __init__(self, tokenizer: Tokenizer, folder: Path, facts: Path, heldout: float):
        super().__init__()
        self.tokenizer = tokenizer
        self.folder = folder
        self.facts = facts
        self.heldout = heldout

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Consume the documents: nothing comes after this step."""
        with ExitStack() as stack:
            shards = {
                split: stack.enter_context(new_shard(folder, rank, world_size, self.tokenizer))
                for split, folder in _folders(self.folder, self.heldout).items()
            }
            for document in data:
                with self.track_time():
                    shards[_split(document.text, self.heldout)].add(document.text)
        facts = {split: shard.facts() for split, shard in shards.items()}
        write_json(_facts_file(self.facts, rank), facts)
        yield from ()


class WriteText(PipelineStep):
    """Write the text of a task's documents, those held out in a folder of their own.

    Args:
        folder: Folder of the corpus.
        heldout: Share of the documents that are held out.
    """

    type = "WRITE"
    name = "text"

    def __init__(self, folder: Path, heldout: float):
        super().__init__()
        self.folder = folder
        self.heldout = heldout

    def run(
        self, data: Iterator[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Consume the documents: nothing comes after this step."""
        with ExitStack() as stack:
            add = {
                split: stack.enter_context(new_documents(folder / TEXT, rank))
                for split, folder in _folders(self.folder, self.heldout).items()
            }
            for document in data:
                add[_split(document.text, self.heldout)](document)
        yield from ()


def _folders(folder: Path, heldout: float) -> dict[str, Path]:
    return {TRAIN: folder} | ({HELDOUT: folder / HELDOUT} if heldout else {})


def _split(text: str, heldout: float) -> str:
    """The split of a document, from the hash of its text alone."""
    return HELDOUT if _hash(text) < heldout * 2**64 else TRAIN


def _facts_file(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.json"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
