"""The comparison in sentences, for those who read nothing else."""

from collections.abc import Iterator, Sequence

from clp_jax.compare.comparison import Comparison, Paired
from clp_jax.compare.reach import Arm, Reach
from clp_jax.results import Results

MANY = 4
"""Names that a sentence lists; of more it lists the first ones."""
FORGOTTEN = 1.005
"""Bits per byte after training, as a multiple of those before, from which a text is forgotten."""


def summarise(comparison: Comparison) -> Iterator[str]:
    """What was gained, what was forgotten, what it took, and which tasks are beyond chance."""
    for name in comparison.sets:
        yield from _gained(comparison.arms, name)
        if comparison.differing_texts(name):
            yield f"The runs have different texts called {name}, so these do not compare."
    for name in comparison.sets:
        yield from (_reached(name, reach) for reach in comparison.reaches(name))
    for label, results in comparison.results.items():
        yield from _beyond_chance(label, results)
    first = comparison.subjects[0].label
    for label, paired in comparison.paired.items():
        yield from _against(label, first, paired)


def _gained(arms: Sequence[Arm], name: str) -> Iterator[str]:
    """Who is lowest at the end, and who is worse than at the start."""
    starts = [arm.mean(name, lambda points: points[0].bits_per_byte) for arm in arms]
    ends = [arm.mean(name, lambda points: points[-1].bits_per_byte) for arm in arms]
    known = [
        (end, start, arm)
        for end, start, arm in zip(ends, starts, arms, strict=True)
        if end is not None and start is not None
    ]
    end, start, best = min(known, key=lambda found: found[0])
    rank = ", the lowest of all" if len(known) > 1 else ""
    yield (
        f"On {name}, {best.label} ends at {end:.3f} bits per byte{_seeds(best)}{rank}; at the "
        f"start it had {start:.3f}."
    )
    for end, start, arm in known:
        if end > FORGOTTEN * start:
            yield (
                f"{arm.label} has forgotten some {name}: it ends with {end / start - 1:.1%} more "
                f"bits per byte than it had at the start ({start:.3f} to {end:.3f})."
            )


def _seeds(arm: Arm) -> str:
    return f" (mean of {len(arm.runs)} seeds)" if len(arm.runs) > 1 else ""


def _reached(name: str, reach: Reach) -> str:
    arm, mark = reach.arm.label, f"the best of {reach.other.label} ({reach.mark:.3f} bits per byte)"
    if reach.tokens is None:
        often = f" with {reach.missed} of {reach.pairs} seeds" if reach.pairs > 1 else ""
        return f"On {name}, {arm} does not reach {mark}{often}."
    text = f"On {name}, {arm} reaches {mark} with {reach.share:.0%} of the tokens"
    if reach.low is not None and reach.high is not None:
        text += f"; 95% interval over {reach.pairs} seeds: {reach.low:.0%} to {reach.high:.0%}"
    return text + "."


def _beyond_chance(label: str, results: Results) -> Iterator[str]:
    known = [score for score in results.main_scores() if score.random is not None]
    if not known:
        return
    better = [score.task for score in known if score.verdict == "better than guessing"]
    tasks = "the task" if len(known) == 1 else f"{len(better) or 'any'} of {len(known)} tasks"
    if better:
        yield f"{label} is better than guessing on {tasks}{_listed(better, len(known))}."
    else:
        yield f"{label} is no better than guessing on {tasks}."


def _against(label: str, first: str, paired: Paired) -> Iterator[str]:
    verdicts = {
        task: scores.get("f1", next(iter(scores.values())))["verdict"]
        for task, scores in paired.items()
        if scores
    }
    tested = [task for task, verdict in verdicts.items() if verdict != "not comparable"]
    if not tested:
        return
    parts = [
        f"{verdict} on {len(found)}{_listed(found, len(tested))}"
        for verdict in ("better", "worse")
        if (found := [task for task in tested if verdicts[task] == verdict])
    ]
    if not parts:
        yield f"{label} does not differ significantly from {first} on any of {len(tested)} tasks."
        return
    yield (
        f"{label} is significantly {' and '.join(parts)} of {len(tested)} tasks, compared with "
        f"{first}, question by question."
    )


def _listed(tasks: Sequence[str], of: int) -> str:
    """Names in brackets, unless all or none are meant."""
    if len(tasks) == of:
        return ""
    more = f" and {len(tasks) - MANY} more" if len(tasks) > MANY else ""
    return f" ({', '.join(tasks[:MANY])}{more})"
