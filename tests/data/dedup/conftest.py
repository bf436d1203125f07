"""Runs the stages of a deduplication in this process, as datatrove's executors do it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.data.stages import Deduplication, ReadDocuments, Stage, Workspace, WriteDocuments


class Corpus:
    """Documents on the disk, from a list of texts for each task; an id is `TASK/INDEX`."""

    def __init__(self, folder: Path, tasks: Sequence[Iterable[str]]):
        self.place = Workspace(
            folder / "before", len(tasks), folder / "scratch", folder / "samples"
        )
        self.after = folder / "after"
        self.filter: PipelineStep
        for rank, texts in enumerate(tasks):
            data = (Document(text, f"{rank}/{index}") for index, text in enumerate(texts))
            list(WriteDocuments(self.place.documents).run(data, rank, len(tasks)))

    def deduplicate(
        self, method: Callable[[Workspace], Deduplication], order: int = 1
    ) -> dict[str, str]:
        """The texts that stay, by id; with ``order`` -1 the last task of a stage runs first."""
        deduplication = method(self.place)
        self.filter = deduplication.filter
        steps = [ReadDocuments(self.place.documents), self.filter, WriteDocuments(self.after)]
        for stage in [*deduplication.stages, Stage("filter", steps, self.place.tasks)]:
            for rank in range(stage.tasks)[::order]:
                data = None
                for step in stage.steps:
                    data = step.run(data, rank, stage.tasks)
                for _ in data or ():
                    pass
        return {
            document.id: document.text
            for rank in range(self.place.tasks)
            for document in ReadDocuments(self.after).run(rank=rank)
        }

    def counted(self) -> dict[str, int]:
        """What the filter has counted."""
        return {name: value.total for name, value in self.filter.stats.stats.items()}


@pytest.fixture
def corpus(tmp_path) -> Callable[[Sequence[Iterable[str]]], Corpus]:
    """Make a `Corpus` of lists of texts, each in a new folder."""
    made: list[Corpus] = []

    def make(tasks: Sequence[Iterable[str]]) -> Corpus:
        made.append(Corpus(tmp_path / str(len(made)), tasks))
        return made[-1]

    return make


@pytest.fixture(params=[1, -1], ids=["first to last", "last to first"])
def order(request) -> int:
    """The order in which the tasks of a stage run."""
    return request.param


@pytest.fixture(params=[1, 100], ids=["many buckets", "one bucket"])
def buckets(request, monkeypatch) -> None:
    """Into how many buckets the findings are divided."""
    monkeypatch.setattr("clp_jax.data.dedup.fingerprints._TASKS_A_BUCKET", request.param)
