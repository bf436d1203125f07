"""How many tokens one run needs to reach another run's best."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from clp_jax.compare.subjects import Point, Subject
from clp_jax.evaluate.plots import tokens_to_reach

NUMBER = re.compile(r"[-_. ]*(seed)?[-_. ]*\d+$")
"""The end of a label that distinguishes the seeds of an arm."""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: that of its runs without the number at its end, or that of the first.
        runs: ordered by seed.
    """

    label: str
    runs: Sequence[Subject]

    def mean(self, name: str, value: Callable[[Sequence[Point]], float]) -> float | None:
        """The mean of a value of the curves on a validation set; None if no run has one."""
        found = [value(run.sets[name]) for run in self.runs if run.sets.get(name)]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Reach:
    """What it takes one arm to reach what the other arm's runs have at their best.

    Attributes:
        arm: the arm that is to reach it.
        other: the arm that sets the mark.
        mark: mean of the best bits per byte of the other's runs.
        pairs: runs compared: those of the same place in the order of seeds.
        missed: how many of the pairs never reach it.
        tokens: mean tokens after which they do; None if one never does, as for what follows.
        share: mean of those tokens as a share of what the other run took itself.
        low: lower end of the 95% interval of the share over seeds; None with fewer than two pairs.
        high: its upper end.
        flops_share: the share in operations instead of tokens; None if they are not known.
    """

    arm: Arm
    other: Arm
    mark: float
    pairs: int
    missed: int
    tokens: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None
    flops_share: float | None = None


def group_by_seed(subjects: Sequence[Subject]) -> list[Arm]:
    """The runs as arms, in the order of the first run of each."""
    groups: list[list[Subject]] = []
    for subject in subjects:
        if subject.training is None:
            continue
        group = next((group for group in groups if _same_but_seed(group[0], subject)), None)
        if group is None:
            groups.append([subject])
        else:
            group.append(subject)
    names = [{NUMBER.sub("", run.label) for run in group} for group in groups]
    return [
        Arm(
            name.pop()
            if len(group) > 1 and names.count(name) == 1 == len(name)
            else group[0].label,
            sorted(group, key=lambda run: run.training.seed if run.training else 0),
        )
        for group, name in zip(groups, names, strict=True)
    ]


def _same_but_seed(one: Subject, other: Subject) -> bool:
    if one.training is None or other.training is None:
        return False
    return one.start == other.start and one.training.settings == other.training.settings


def reach_best(arm: Arm, other: Arm, name: str) -> Reach | None:
    """Tokens until an arm's runs reach the best of the other's.

    Run is compared with run, seed by seed, as `tokens_to_reach` defines it, in perplexity per byte,
    which tokenizers share. The 95% interval is Student's over the seeds.

    Args:
        arm: the arm that is to reach it.
        other: the arm that sets the mark.
        name: of the validation set.

    Returns:
        None where one of them has no measurements, or the other is at its best before training.
    """
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(arm.runs, other.runs, strict=False)
        if mine.sets.get(name) and theirs.sets.get(name)
    ]
    marks = [lowest(theirs.sets[name]) for _, theirs in pairs]
    own = [_tokens(theirs.sets[name], mark) for (_, theirs), mark in zip(pairs, marks, strict=True)]
    if not pairs or not all(own):
        return None
    found = [_tokens(mine.sets[name], mark) for (mine, _), mark in zip(pairs, marks, strict=True)]
    result = Reach(arm, other, float(np.mean(marks)), len(pairs), found.count(None))
    if result.missed:
        return result
    shares = np.divide(np.array(found, float), np.array(own, float))
    share, (low, high), costs = float(shares.mean()), _interval(shares), _flops_ratio(*pairs[0])
    return replace(
        result,
        tokens=float(np.mean(np.array(found, float))),
        share=share,
        low=low,
        high=high,
        flops_share=None if costs is None else share * costs,
    )


def lowest(points: Sequence[Point]) -> float:
    """The lowest bits per byte of a curve."""
    return min(point.bits_per_byte for point in points)


def _tokens(points: Sequence[Point], mark: float) -> float | None:
    return tokens_to_reach([(point.tokens, 2**point.bits_per_byte) for point in points], 2**mark)


def _interval(shares: Float[np.ndarray, " pair"]) -> tuple[float | None, float | None]:
    if len(shares) < 2:
        return None, None
    half = student.ppf(0.975, len(shares) - 1) * shares.std(ddof=1) / math.sqrt(len(shares))
    return float(shares.mean() - half), float(shares.mean() + half)


def _flops_ratio(mine: Subject, theirs: Subject) -> float | None:
    """Operations per token of the one run, as a multiple of the other's."""
    assert mine.training is not None
    assert theirs.training is not None
    a, b = mine.training.flops_per_token, theirs.training.flops_per_token
    return None if a is None or b is None else a / b
