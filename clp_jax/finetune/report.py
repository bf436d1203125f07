"""What fine-tuning with several seeds has found, as numbers and as a table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clp_jax.checkpoint.orbax import latest_step
from clp_jax.evaluate.tables import markdown_table
from clp_jax.finetune.settings import ANSWERS
from clp_jax.results import TASK_COLUMNS, TaskScore, read_results, task_row
from clp_jax.train.metrics import read_metrics, validation_metric

SCORES = "tasks.json"
"""File of a run with the scores of its model, as `clp-jax evaluate tasks --json` writes them."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model and its scores.

    Attributes:
        run: its run folder.
        seed: of the order of the examples, and of new adapters.
        step: the step of the model.
        loss: on the held-out answers, in nats per token.
        scores: on the task's test set.
    """

    run: Path
    seed: int
    step: int
    loss: float
    scores: Sequence[TaskScore]


def read_tuned(run: Path, seed: int) -> Tuned:
    """What a finished run has found."""
    step, key = latest_step(run) or 0, validation_metric(ANSWERS, "loss")
    losses = {line["step"]: line[key] for line in read_metrics(run) if key in line}
    return Tuned(run, seed, step, losses[step], read_results([run / SCORES]).tasks)


def spread(tuned: Sequence[Tuned]) -> dict[str, dict[str, float | None]]:
    """For each metric the mean over the seeds and their standard deviation (n - 1; None of one)."""
    found = {}
    for metric in [score.metric for score in tuned[0].scores]:
        scores = [score.score for one in tuned for score in one.scores if score.metric == metric]
        deviation = statistics.stdev(scores) if len(scores) > 1 else None
        found[metric] = {"mean": statistics.fmean(scores), "deviation": deviation}
    return found


def to_dict(task: str, tuned: Sequence[Tuned]) -> dict[str, Any]:
    """All of it, ready for JSON."""
    runs = [
        {
            "run": str(one.run),
            "seed": one.seed,
            "step": one.step,
            "heldout_loss": one.loss,
            "scores": [vars(score) for score in one.scores],
        }
        for one in tuned
    ]
    return {"task": task, "runs": runs, "spread": spread(tuned)}


def render(task: str, tuned: Sequence[Tuned]) -> str:
    """A table of the scores on the test set, and which model has the lowest held-out loss."""
    rows = []
    columns = TASK_COLUMNS[1:]  # There are no shots.
    for metric, found in spread(tuned).items():
        rows += [
            (metric, one.run.name, f"{one.step:,}", f"{one.loss:.3f}", *task_row(score)[1:])
            for one in tuned
            for score in one.scores
            if score.metric == metric
        ]
        if len(tuned) > 1:
            mean = f"{found['mean']:.3f} ± {found['deviation']:.3f}"
            rows.append((metric, f"mean of {len(tuned)}", "", "", mean, *[""] * (len(columns) - 1)))
    best = min(tuned, key=lambda one: one.loss)
    table = markdown_table(("metric", "run", "step", "held-out loss", *columns), rows)
    chosen = "" if len(tuned) == 1 else ", the one with the lowest held-out loss"
    return f"{task}, fine-tuned:\n\n{table}\n\nThe model is {best.run}{chosen}."
