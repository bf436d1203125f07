"""Everything that a comparison knows, before it becomes a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clp_jax.compare.reach import Arm, Reach, group_by_seed, reach_best
from clp_jax.compare.subjects import ONLY_SET, Subject
from clp_jax.results import Results

Paired = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""What `clp_jax.compare_results` returns."""


@dataclass(frozen=True)
class Comparison:
    """What was measured of several runs and models.

    Attributes:
        subjects: the runs and models.
        results: their results by label.
        paired: for each label but the first, its tasks tested against those of the first.
        samples: for each prompt the texts, with the labels of who wrote them.
    """

    subjects: Sequence[Subject]
    results: Mapping[str, Results]
    paired: Mapping[str, Paired]
    samples: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def sets(self) -> list[str]:
        """The names of the validation sets of all runs."""
        return [*dict.fromkeys(name for subject in self.subjects for name in subject.sets)]

    def differing_texts(self, name: str) -> bool:
        """Whether runs with one tokenizer have different texts as a validation set of one name."""
        key = "validation corpus" if name == ONLY_SET else f"validation corpus {name}"
        hashes = [run.training.settings["hashes"] for run in self.subjects if run.training]
        texts = {(found["tokenizer"], found.get(key)) for found in hashes if key in found}
        return len(texts) > len({tokenizer for tokenizer, _ in texts})

    @cached_property
    def arms(self) -> list[Arm]:
        """The runs, those that differ only in their seed together."""
        return group_by_seed(self.subjects)

    def reaches(self, name: str) -> Iterator[Reach]:
        """Each arm against the best of each other arm on a validation set."""
        for arm in self.arms:
            for other in self.arms:
                if arm is not other and (found := reach_best(arm, other, name)):
                    yield found
