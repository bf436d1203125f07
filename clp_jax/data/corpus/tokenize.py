"""The last steps of a document: it is counted, then written as tokens or as text."""

import hashlib
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.data.corpus.store import Size, lengths_name, new_shard, tokens_name
from clp_jax.data.seals import files_of_tasks, seal
from clp_jax.data.stages import documents_file, new_documents
from clp_jax.files import read_json, write_json
from clp_jax.tokenizer import Tokenizer

HELDOUT = "heldout"
TRAIN = "train"
TEXT = "text"
KEPT, SHARDS, SAMPLES = "kept", "shards", "samples"
"""Folders for what tasks report: documents kept, tokens, dropped documents."""

_SAMPLED = 20
_SAMPLED_CHARACTERS = 5_000


def write_facts(folder: Path, rank: int, facts: Mapping[str, Any], *files: Path) -> None:
    """Write what a task reports, and seal it together with the files that it wrote."""
    write_json(folder / f"{rank:05d}.json", facts)
    seal(folder, rank, folder / f"{rank:05d}.json", *files)


def read_facts(folder: Path) -> list[dict[str, Any]]:
    """The reports of the tasks in ``folder``, in task order."""
    return [read_json(file) for file in files_of_tasks(folder, ".json")]


class Counts:
    """Counts the documents of each source (its number starts their ids) and samples beginnings.

    The samples are from the documents with the smallest hashes, so a rerun of a task keeps the
    same ones.

    Args:
        heldout: Share of the documents that are held out.
    """

    def __init__(self, heldout: float):
        self._share = heldout
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)
        self._heldout: Counter[str] = Counter()
        self._sample: list[tuple[int, str]] = []

    def add(self, document: Document, size: Size) -> str:
        """Count a document, and return its split, which its text alone decides."""
        hash_ = int.from_bytes(hashlib.sha256(document.text.encode()).digest()[:8], "big")
        sizes = {"documents": 1, **size._asdict()}
        self._sources[document.id.partition("/")[0]].update(sizes)
        sampled = hash_, document.text[:_SAMPLED_CHARACTERS]
        if len(self._sample) < _SAMPLED or sampled < self._sample[-1]:
            insort(self._sample, sampled)
            del self._sample[_SAMPLED:]
        if hash_ >= self._share * 2**64:
            return TRAIN
        self._heldout.update(sizes)
        return HELDOUT

    def write(self, folder: Path, rank: int) -> None:
        """Write the counts of a task: per source, held out, and samples."""
        sample = [text for _, text in self._sample]
        write_facts(
            folder, rank, {"sources": self._sources, HELDOUT: self._heldout, "sample": sample}
        )


class Tokenize(PipelineStep):
    """Write the tokens of a task's documents as one shard of the corpus and one held out.

    Args:
        tokenizer: The tokenizer.
        folder: Folder of the corpus.
        work: Folder of the stages.
        heldout: Share of the documents that go to the held-out corpus.
    """

    type = "WRITE"
    name = "tokens"

    def __init__(self, tokenizer: Tokenizer, folder: Path, work: Path, heldout: float):
        super().__init__()
        self.tokenizer = tokenizer
        self.folder = folder
        self.work = work
        self.heldout = heldout

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Write the documents."""
        counts, folders = Counts(self.heldout), _folders(self.folder, self.heldout)
        with ExitStack() as stack:
            shards = {
                split: stack.enter_context(new_shard(folder, rank, world_size, self.tokenizer))
                for split, folder in folders.items()
            }
            for document in data:
                size = Size.of(document.text)
                shards[counts.add(document, size)].add(document.text, size)
        counts.write(self.work / KEPT, rank)
        facts = {split: shard.facts() for split, shard in shards.items()}
        names = tokens_name(rank, world_size), lengths_name(rank, world_size)
        files = [folder / name for folder in folders.values() for name in names]
        write_facts(self.work / SHARDS, rank, facts, *files)


class WriteText(PipelineStep):
    """Write the text of a task's documents, those held out in a folder of their own.

    Args:
        folder: Folder of the corpus.
        work: Folder of the stages.
        heldout: Share of the documents that are held out.
    """

    type = "WRITE"
    name = "text"

    def __init__(self, folder: Path, work: Path, heldout: float):
        super().__init__()
        self.folder = folder
        self.work = work
        self.heldout = heldout

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Write the documents."""
        counts, folders = Counts(self.heldout), _folders(self.folder, self.heldout)
        with ExitStack() as stack:
            add = {
                split: stack.enter_context(new_documents(folder / TEXT, rank))
                for split, folder in folders.items()
            }
            for document in data:
                add[counts.add(document, Size.of(document.text))](document)
        counts.write(self.work / KEPT, rank)
        files = [documents_file(folder / TEXT, rank) for folder in folders.values()]
        write_facts(self.work / SHARDS, rank, {}, *files)


def _folders(folder: Path, heldout: float) -> dict[str, Path]:
    return {TRAIN: folder} | ({HELDOUT: folder / HELDOUT} if heldout else {})
