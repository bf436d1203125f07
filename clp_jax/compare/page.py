"""The page of a comparison: its sections, and the plots among them."""

import re
from collections.abc import Iterator, Mapping, Sequence

from clp_jax.compare.comparison import Comparison
from clp_jax.compare.plots import Drawing, Line, draw_curves, draw_tasks
from clp_jax.compare.reach import Reach
from clp_jax.compare.summary import summarise
from clp_jax.pages import Plot, Section, Table, Texts
from clp_jax.pages.blocks import UNKNOWN, Block
from clp_jax.results import (
    TASK_COLUMNS,
    TEXT_COLUMNS,
    interval,
    number,
    task_row,
    text_row,
)


class Page:
    """The sections of a comparison.

    Attributes:
        drawings: the plots by the name of their files, without the ending.
        sections: those with content.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.drawings: dict[str, Drawing] = {}
        sections = [
            Section("In short", [*summarise(comparison)]),
            Section("What is compared", [_subjects(comparison)]),
            *(
                Section(f"Bits per byte: {name}", [*self._curves(comparison, place, name)])
                for place, name in enumerate(comparison.sets, 1)
            ),
            Section("Tokens to reach another run's best", [*_reaches(comparison)]),
            Section("Other texts", [*_texts(comparison)]),
            Section("Tasks", [*self._tasks(comparison)]),
            Section("Samples of text", [*_samples(comparison)]),
            Section("Tokens per word", [*_tokens_per_word(comparison)]),
            Section("Cost of training", [*_cost(comparison)]),
        ]
        self.sections = [section for section in sections if section.blocks]

    def _plot(self, name: str, drawing: Drawing, text: str) -> Plot:
        self.drawings[name] = drawing
        return Plot(drawing.svg, text, drawing.dark, f"{name}.svg")

    def _curves(self, comparison: Comparison, place: int, name: str) -> Iterator[Block]:
        arms = {run.label: arm.label for arm in comparison.arms for run in arm.runs}
        runs = [run for arm in comparison.arms for run in arm.runs if run.sets.get(name)]
        file = f"{place}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}"
        tokens = [
            Line(arms[run.label], [(point.tokens, point.bits_per_byte) for point in run.sets[name]])
            for run in runs
        ]
        drawing = draw_curves(tokens, f"{name}: over tokens", "training tokens")
        yield self._plot(f"{file}-over-tokens", drawing, f"{name}: bits per byte over tokens")
        flops = [
            Line(label, [(tokens * run.training.flops_per_token, bits) for tokens, bits in points])
            for run, (label, points) in zip(runs, tokens, strict=True)
            if run.training is not None and run.training.flops_per_token is not None
        ]
        if flops:
            drawing = draw_curves(flops, f"{name}: over FLOPs", "floating-point operations")
            yield self._plot(f"{file}-over-flops", drawing, f"{name}: bits per byte over FLOPs")
        rows = []
        for run in runs:
            points = run.sets[name]
            best = min(points, key=lambda point: point.bits_per_byte)
            start, end = points[0].bits_per_byte, points[-1].bits_per_byte
            rows.append(
                (
                    run.label,
                    f"{start:.4f}",
                    f"{best.bits_per_byte:.4f}",
                    f"{best.tokens:,}",
                    f"{end:.4f}",
                    f"{end / start - 1:+.1%}",
                )
            )
        yield Table(("run", "at the start", "best", "after tokens", "at the end", "change"), rows)

    def _tasks(self, comparison: Comparison) -> Iterator[Block]:
        scored = {
            label: results.main_scores()
            for label, results in comparison.results.items()
            if results.tasks
        }
        if not scored:
            return
        rows = [*dict.fromkeys((s.task, s.metric) for found in scored.values() for s in found)]
        drawing = draw_tasks(scored, rows)
        yield self._plot("tasks", drawing, "scores of tasks with their 95% intervals")
        yield Table(
            ("task", "metric", "model", *TASK_COLUMNS),
            [
                (*row, label, *task_row(score))
                for row in dict.fromkeys(
                    (s.task, s.metric) for label in scored for s in comparison.results[label].tasks
                )
                for label in scored
                for score in comparison.results[label].tasks
                if (score.task, score.metric) == row
            ],
        )
        yield (
            "Random guesses among each question's own choices; majority always gives the most "
            "frequent answer. A model counts as better than guessing only if its whole 95% "
            "interval is above all guessing, also that of its own answers dealt at random, and if "
            "this is significant for the number of tasks. Chance is not known where another "
            "program wrote the scores."
        )
        if differences := [*_paired(comparison)]:
            first = comparison.subjects[0].label
            yield Table(
                ("task", "metric", "model", f"against {first}", "95% interval", "p", "in words"),
                differences,
            )
            yield (
                f"Differences to {first}, question by question: McNemar's exact test of right and "
                "wrong answers, a bootstrap of everything else; p is corrected for the number of "
                "tasks (Holm)."
            )


def _subjects(comparison: Comparison) -> Table:
    def seed(label: str) -> str:
        return next((f"{run.training.seed}" for run in comparison.subjects
                     if run.label == label and run.training), UNKNOWN)  # fmt: skip

    return Table(
        ("name", "what it is", "parameters", "vocabulary", "seed"),
        [
            (
                subject.label,
                f"run from the {subject.start}" if subject.training else "model",
                f"{subject.parameters:,}",
                f"{subject.rows:,}",
                seed(subject.label),
            )
            for subject in comparison.subjects
        ],
    )


def _reaches(comparison: Comparison) -> Iterator[Block]:
    found = [(name, reach) for name in comparison.sets for reach in comparison.reaches(name)]
    if not found:
        return
    yield Table(
        ("text", "run", "to the best of", "bits per byte", "tokens", "share of its tokens",
         "95% interval", "share of its FLOPs"),
        [(name, *_reach_row(reach)) for name, reach in found],
    )  # fmt: skip
    intervals = "The interval is Student's, over pairs of runs that differ only in their seed."
    if all(reach.low is None for _, reach in found):
        intervals = "Each run has one seed, so there is no interval: a second seed may differ."
    yield (
        "Tokens after which a run first has as few bits per byte as the other run at its best; "
        "between two measurements, bits per byte are taken to be linear in the tokens. "
        f"{intervals} FLOPs are those of training steps alone: what a source model cost before is "
        "not counted."
    )


def _reach_row(reach: Reach) -> Sequence[str]:
    tokens = "never" if reach.tokens is None else f"{reach.tokens:,.0f}"
    return (
        reach.arm.label,
        reach.other.label,
        f"{reach.mark:.4f}",
        tokens,
        number(reach.share, ".0%"),
        interval(reach.low, reach.high, ".0%"),
        number(reach.flops_share, ".0%"),
    )


def _texts(comparison: Comparison) -> Iterator[Block]:
    rows = [
        (score.name, label, *text_row(score))
        for label, results in comparison.results.items()
        for score in results.texts
    ]
    if rows:
        yield Table(("text", "model", *TEXT_COLUMNS), sorted(rows, key=lambda row: row[0]))
        yield (
            "Bits per byte compare models with different tokenizers; perplexities per token do not."
        )


def _paired(comparison: Comparison) -> Iterator[Sequence[str]]:
    for label, tasks in comparison.paired.items():
        for task, metrics in tasks.items():
            for metric, found in metrics.items():
                yield (
                    task,
                    metric,
                    label,
                    number(found["difference"], "+.3f"),
                    interval(found["low"], found["high"], "+.3f"),
                    number(found["p_corrected"], ".3g"),
                    found["verdict"],
                )


def _samples(comparison: Comparison) -> Iterator[Block]:
    for prompt, texts in comparison.samples.items():
        yield f"“{prompt}”" if prompt else "Without a prompt:"
        yield Texts(texts)


def _tokens_per_word(comparison: Comparison) -> Iterator[Block]:
    """From the perplexities per word and per token, whose logarithms they divide."""
    ratios: dict[str, Mapping[str, float | None]] = {}
    for subject in comparison.subjects:
        results = comparison.results.get(subject.label)
        texts = {score.name: score.tokens_per_word for score in results.texts} if results else {}
        curves: dict[str, float | None] = {
            name: points[-1].tokens_per_word for name, points in subject.sets.items()
        }
        ratios[subject.label] = curves | texts
    if names := [*dict.fromkeys(name for found in ratios.values() for name in found)]:
        yield Table(
            ("model", *names),
            [
                (label, *(number(found.get(name)) for name in names))
                for label, found in ratios.items()
                if found
            ],
        )
        yield "Fewer tokens for the same words make a model cheaper to train and to use."


def _cost(comparison: Comparison) -> Iterator[Block]:
    rows = [
        (
            run.label,
            f"{run.training.tokens:,}",
            number(run.training.flops, ".3g"),
            f"{run.training.seconds / 3600:,.2f}",
            number(run.training.chips, ","),
            number(run.training.chip_hours, ",.2f"),
            run.training.device or UNKNOWN,
        )
        for run in comparison.subjects
        if run.training is not None
    ]
    if rows:
        headers = ("run", "tokens", "FLOPs", "hours", "chips", "chip-hours", "device")
        yield Table(headers, rows)
