"""A runner of stages in this process, as datatrove's executors do it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from datatrove.data import Document

from clp_jax.data.documents import ReadDocuments, WriteDocuments, documents_file
from clp_jax.data.stages import Deduplication, Place, Stage


def run_stage(stage: Stage, order: int = 1) -> None:
    for rank in range(stage.tasks)[::order]:
        data = None
        for step in stage.steps:
            data = step.run(data, rank, stage.tasks)
        for _ in data or ():
            pass


class Corpus:
    """Documents on the disk, a list of texts for each task; an id is `TASK/INDEX`."""

    def __init__(self, folder: Path, tasks: Sequence[Iterable[str]]):
        self.place = Place(folder / "before", len(tasks), folder / "scratch", folder / "samples")
        self.after = folder / "after"
        for rank, texts in enumerate(tasks):
            data = (Document(text, f"{rank}/{index}") for index, text in enumerate(texts))
            list(WriteDocuments(self.place.documents).run(data, rank, len(tasks)))

    def deduplicate(
        self, function: Callable[[Place], Deduplication], order: int = 1
    ) -> dict[str, str]:
        """Texts that stay, by id; with ``order`` -1 the last task of each stage runs first."""
        deduplication = function(self.place)
        steps = [
            ReadDocuments(self.place.documents), deduplication.filter, WriteDocuments(self.after)
        ]  # fmt: skip
        for stage in [*deduplication.stages, Stage("filter", steps, self.place.tasks)]:
            run_stage(stage, order)
        self.filter = deduplication.filter
        return {
            document.id: document.text
            for rank in range(self.place.tasks)
            for document in ReadDocuments(self.after).run(rank=rank)
        }

    def written(self) -> list[bytes]:
        return [documents_file(self.after, rank).read_bytes() for rank in range(self.place.tasks)]


@pytest.fixture
def corpus(tmp_path) -> Callable[[Sequence[Iterable[str]]], Corpus]:
    """Make a `Corpus` of lists of texts, each time in a new folder."""
    made: list[Corpus] = []

    def make(tasks: Sequence[Iterable[str]]) -> Corpus:
        made.append(Corpus(tmp_path / str(len(made)), tasks))
        return made[-1]

    return make
