"""Two results of `evaluate_tasks` on the same examples, tested against each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clp_jax.errors import UserError
from clp_jax.evaluate.tables import markdown_table
from clp_jax.evaluate.tasks.resample import TABLES, Statistics, of_pairs, resample, statistics_of
from clp_jax.evaluate.tasks.scores import read_values
from clp_jax.evaluate.tasks.significance import LEVEL, bootstrap_p, holm, mcnemar_p, p_cell
from clp_jax.files import read_json

Results = Mapping[str, Mapping[str, Any]]


def read_results(file: str | Path) -> Results:
    """The results in a file that ``clp-jax evaluate tasks --json`` wrote.

    Raises:
        UserError: it is missing, or something else.
    """
    results = read_json(file)
    for task in results.values():
        if not isinstance(task, dict) or not {"documents", "passages", "metrics"} <= task.keys():
            raise UserError(
                f"{file} has no answers to single examples: write it with "
                "`clp-jax evaluate tasks --json`."
            )
    return results


def compare_results(ours: Results, others: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Test two results of `evaluate_tasks` against each other, example by example.

    Accuracies are tested with McNemar's exact test unless questions share a passage, everything
    else by a bootstrap of the examples, or passages, that both models answered. The p values of a
    metric are corrected for the number of tasks that have it (Holm, 1979).

    Args:
        ours: what `evaluate_tasks` returned or ``--json`` wrote.
        others: the same of another model, or of the same one asked in another way.

    Returns:
        For each task and metric that both have: ``score``, ``against`` (the other's score),
        ``difference`` (the first less the second), ``low`` and ``high`` (its 95% bootstrap
        interval), ``p``, ``p_corrected``, ``test`` ("McNemar" or "bootstrap"),
        ``higher_is_better`` and ``verdict``: "better", "worse" or "no difference" at a corrected p
        of 0.05, and "not comparable" with None for the numbers of the test where the examples
        differ or the metric has no values.
    """
    found = {
        name: {
            metric: _compare(ours[name], others[name], metric)
            for metric in ours[name]["metrics"]
            if metric in others[name]["metrics"]
        }
        for name in ours
        if name in others
    }
    for metric in {metric: None for scores in found.values() for metric in scores}:
        tested = [
            scores[metric]
            for scores in found.values()
            if metric in scores and scores[metric]["p"] is not None
        ]
        corrected = holm([score["p"] for score in tested])
        for score, p in zip(tested, corrected, strict=True):
            score["p_corrected"] = p
            if p < LEVEL:
                better = (score["difference"] > 0) == score["higher_is_better"]
                score["verdict"] = "better" if better else "worse"
    return found


def render_comparison(comparison: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Render the result of `compare_results` as a Markdown table."""

    def number(value: float | None, kind: str = ".3f") -> str:
        return "-" if value is None else f"{value:{kind}}"

    return markdown_table(
        ["task", "metric", "score", "against", "difference", "95% interval", "p", ""],
        [
            [
                name,
                metric,
                number(score["score"]),
                number(score["against"]),
                number(score["difference"], "+.3f"),
                f"{number(score['low'], '+.3f')} to {number(score['high'], '+.3f')}",
                p_cell(score["p_corrected"]),
                score["verdict"],
            ]
            for name, scores in comparison.items()
            for metric, score in scores.items()
        ],
    )


def _compare(ours: Mapping[str, Any], others: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """One metric of one task, with its p yet to be corrected."""
    mine, theirs = ours["metrics"][metric], others["metrics"][metric]
    pair = _statistics(mine, theirs) if ours["documents"] == others["documents"] else None
    found = {
        "score": mine["score"],
        "against": theirs["score"],
        **dict.fromkeys(("difference", "low", "high", "p", "p_corrected", "test")),
        "verdict": "not comparable",
        "higher_is_better": mine["higher_is_better"],
    }
    if pair is None:
        return found
    first, second = pair
    split = first.rows.shape[1]
    cluster_of = np.array(ours["passages"].split(), int)
    sums = resample(np.concatenate([first.rows, second.rows], 1), cluster_of)
    draws = first.score(sums[:, :split]) - second.score(sums[:, split:])
    difference = mine["score"] - theirs["score"]
    low, high = np.quantile(draws, (0.025, 0.975))
    values = [first.rows[:, 0], second.rows[:, 0]]
    exact = (
        mine["aggregate"] == "mean"
        and np.isin(values, (0, 1)).all()
        and len(np.unique(cluster_of)) == len(cluster_of)
    )
    p = mcnemar_p(*(value == 1 for value in values)) if exact else bootstrap_p(difference, draws)
    return found | {
        "difference": difference,
        "low": float(low),
        "high": float(high),
        "p": p,
        "test": "McNemar" if exact else "bootstrap",
        "verdict": "no difference",
    }


def _statistics(
    mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[Statistics, Statistics] | None:
    """The statistics of two models' values, with the same classes."""
    name = mine["aggregate"]
    if name is None or name != theirs["aggregate"] or None in (mine["score"], theirs["score"]):
        return None
    values = [read_values(score["values"]) for score in (mine, theirs)]
    if len(values[0]) != len(values[1]):
        return None
    if name in TABLES:
        pairs = np.array(values, int)
        classes = max(2, int(pairs.max()) + 1)
        return of_pairs(pairs[0], classes, name), of_pairs(pairs[1], classes, name)
    first, second = (statistics_of(of_one, name) for of_one in values)
    return None if first is None or second is None else (first, second)
