"""Documents that go through one rule."""

from collections.abc import Callable

import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

Outcome = tuple[list[str], dict[str, int]]


@pytest.fixture
def follow() -> Callable[..., Outcome]:
    """Pipe texts through a rule: the texts that are left, and its counts."""

    def pipe(rule: PipelineStep, *texts: str, **metadata: object) -> Outcome:
        documents = (
            Document(text, str(i), metadata=dict(metadata)) for i, text in enumerate(texts)
        )
        left = [document.text for document in rule.run(documents)]
        return left, {name: count.total for name, count in rule.stats.stats.items()}

    return pipe
