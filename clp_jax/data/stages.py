"""Stages of `clp-jax prepare`: steps of datatrove, each run by a number of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datatrove.pipeline.base import PipelineStep


def logs_of(work: Path, stage: str) -> Path:
    """Where datatrove notes the tasks of a stage that are done, what they counted and their log."""
    return work / "logs" / stage


class Stage(NamedTuple):
    """Steps that each of ``tasks`` tasks pipes its documents through."""

    name: str
    steps: Sequence[PipelineStep]
    tasks: int


@dataclass(frozen=True)
class Deduplication:
    """One way to find what was there before.

    Attributes:
        stages: They read the documents of a folder, task by task, and find what is to go.
        filter: Takes it out of the same documents in the same order.
    """

    stages: Sequence[Stage]
    filter: PipelineStep


class Place(NamedTuple):
    """Where a deduplication works.

    Attributes:
        documents: Folder with the documents, as `WriteDocuments` leaves it.
        tasks: Number of files in it.
        scratch: Folder for signatures and findings; it is removed afterwards.
        samples: Folder for a few of the dropped documents.
    """

    documents: Path
    tasks: int
    scratch: Path
    samples: Path
