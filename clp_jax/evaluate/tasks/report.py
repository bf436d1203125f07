"""What a run of the harness found: scores, intervals and guessing, as numbers and as a table."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from clp_jax.evaluate.tables import markdown_table
from clp_jax.evaluate.tasks.choices import answers_of, by_length, likelihoods
from clp_jax.evaluate.tasks.resample import RESAMPLES, Aggregate
from clp_jax.evaluate.tasks.scores import Answers, Score, score_classes, score_metric
from clp_jax.evaluate.tasks.significance import holm, p_cell

CLUSTERS = ("passage", "flores_passage", "context", "article", "story", "paragraph", "premise")
"""Fields with the passage that several questions of a task may share."""

UNFILTERED = "none"
"""The harness's name for answers as they come."""

Samples = Sequence[Mapping[str, Any]]
Calibrated = Mapping[str, Float[np.ndarray, "example choice"]]


def summarise(
    results: Mapping[str, Any],
    tasks: Mapping[str, Any],
    calibrated: Mapping[str, Calibrated] | None = None,
) -> dict[str, dict[str, Any]]:
    """For each task its scores, with intervals and guessing; see `evaluate_tasks`.

    Args:
        results: what the harness returns, samples included.
        tasks: its task objects by name.
        calibrated: for each task further scores of the choices by name, see `calibrate.calibrated`.
    """
    scored = {
        name: score_task(
            task,
            results["samples"][name],
            results["higher_is_better"][name],
            None if calibrated is None else calibrated[name],
        )
        for name, task in tasks.items()
    }
    _correct(scored)
    return {
        name: {
            "examples": results["n-samples"][name]["effective"],
            "num_fewshot": results["n-shot"][name],
            "version": results["versions"][name],
            "classes": _classes(task, results["samples"][name]),
            "metrics": {metric: score.to_dict() for metric, score in scored[name].items()},
            **_identity(task, results["samples"][name]),
        }
        for name, task in tasks.items()
    }


def score_task(
    task: Any,
    samples: Samples,
    better: Mapping[str, bool | None],
    calibrated: Calibrated | None = None,
) -> dict[str, Score]:
    """The scores of a task; a metric of filtered answers is named METRIC,FILTER."""
    aggregates = task.aggregation()
    found: dict[str, Score] = {}
    for kind in dict.fromkeys(sample["filter"] for sample in samples):
        chosen = [sample for sample in samples if sample["filter"] == kind]
        answers = answers_of(task, [sample["doc"] for sample in chosen])
        predicted = _predicted(task, chosen, answers)
        for metric in chosen[0]["metrics"]:
            found[metric if kind == UNFILTERED else f"{metric},{kind}"] = score_metric(
                [sample[metric] for sample in chosen],
                aggregates[metric],
                cluster_of=clusters(task, chosen),
                answers=answers,
                predicted=predicted.get(metric),
                higher_is_better=better.get(metric) is not False,
            )
        if calibrated is not None and answers is not None:
            predicted |= {f"acc_{name}": scores.argmax(1) for name, scores in calibrated.items()}
            extra = _score_predicted(predicted, answers, clusters(task, chosen))
            found |= {name: score for name, score in extra.items() if name not in found}
    return found


def _score_predicted(
    predicted: Mapping[str, Int[np.ndarray, " example"]],
    answers: Answers,
    cluster_of: Int[np.ndarray, " example"],
) -> dict[str, Score]:
    """Accuracy, and macro F1 of classes, of several predictions of the same answers."""
    from lm_eval.api.metrics import mean

    from clp_jax.evaluate.tasks.own.data import macro_f1

    def score(values: Sequence[Any], aggregate: Aggregate, chosen: Any) -> Score:
        return score_metric(
            values, aggregate, cluster_of=cluster_of, answers=answers, predicted=chosen
        )

    found = {}
    for name, chosen in predicted.items():
        found[name] = score(answers.correct(chosen), mean, chosen)
        pairs = answers.pairs(chosen)
        if pairs is not None:
            values = [(gold, guess) for gold, guess in pairs.tolist()]
            found[name.replace("acc", "f1", 1)] = score(values, macro_f1, chosen)
    return found


def _predicted(
    task: Any, samples: Samples, answers: Answers | None
) -> dict[str, Int[np.ndarray, " example"]]:
    if answers is None:
        return {}
    return by_length(task, samples, likelihoods(samples, answers))


def _classes(task: Any, samples: Samples) -> dict[str, dict[str, Any]]:
    """The scores of each class of a task that has an F1."""
    answers = answers_of(task, [sample["doc"] for sample in samples])
    if answers is None or answers.classes is None or "f1" not in task.aggregation():
        return {}
    pairs = answers.pairs(_predicted(task, samples, answers)["acc"])
    return {} if pairs is None else score_classes(pairs, answers.classes, clusters(task, samples))


def _correct(scored: Mapping[str, dict[str, Score]]) -> None:
    """Correct the p of each metric for the number of tasks that have it."""
    for metric in {metric: None for scores in scored.values() for metric in scores}:
        tested = {
            name: scores[metric].guessing.p
            for name, scores in scored.items()
            if metric in scores and scores[metric].guessing.p is not None
        }
        for name, p in zip(tested, holm([p or 0.0 for p in tested.values()]), strict=True):
            scored[name][metric] = replace(scored[name][metric], p_corrected=p)


def clusters(task: Any, samples: Samples) -> Int[np.ndarray, " example"]:
    """The number of the passage that each example asks about; of its own if it shares none."""
    named = (task.config.metadata or {}).get("cluster")
    fields = CLUSTERS if named is None else (named,)
    passages = [
        next(
            (doc[field] for field in fields if isinstance(doc.get(field), str)),
            f"{sample['doc_id']}",
        )
        for sample in samples
        for doc in (sample["doc"],)
    ]
    return np.unique(passages, return_inverse=True)[1]


def _identity(task: Any, samples: Samples) -> dict[str, str]:
    """What makes two results comparable: the same examples, and which of them share a passage."""
    first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    hashes = "".join(sample["doc_hash"] for sample in first)
    return {
        "documents": hashlib.sha256(hashes.encode()).hexdigest()[:16],
        "passages": " ".join(map(str, clusters(task, first))),
    }


def render_tasks(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the result of `evaluate_tasks` as Markdown: scores, classes and notes."""
    headers = [
        *("task", "examples", "shots", "metric", "score", "95% interval"),
        *("random", "majority", "shuffled", "p", ""),
    ]
    scores = markdown_table(
        headers,
        [
            [
                name,
                f"{task['examples']:,}",
                f"{task['num_fewshot']}",
                metric,
                f"{score['score']:.3f}",
                f"{score['low']:.3f} to {score['high']:.3f}",
                *(
                    "-" if score[key] is None else f"{score[key]:.3f}"
                    for key in ("random", "majority", "shuffled")
                ),
                p_cell(score["p_corrected"]),
                score["verdict"],
            ]
            for name, task in results.items()
            for metric, score in task["metrics"].items()
        ],
    )
    classes = markdown_table(
        ["task", "class", "examples", "predicted", "F1", "95% interval"],
        [
            [
                name,
                label,
                f"{score['examples']:,}",
                f"{score['predicted']:,}",
                f"{score['f1']:.3f}",
                f"{score['low']:.3f} to {score['high']:.3f}",
            ]
            for name, task in results.items()
            for label, score in task["classes"].items()
        ],
    )
    tables = [scores, classes] if any(task["classes"] for task in results.values()) else [scores]
    return "\n\n".join([*tables, *_notes(results)])


def _notes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    fewer = {
        metric: score["resamples"]
        for task in results.values()
        for metric, score in task["metrics"].items()
        if score["resamples"] < RESAMPLES
    }
    return [
        f"Computed in {' and '.join(sorted({task['dtype'] for task in results.values()}))}.",
        *(
            f"{name}: {task['cut_examples']:,} examples are longer than the model's context, "
            "which cuts their beginnings."
            for name, task in results.items()
            if task["cut_examples"]
        ),
        *(
            f"{metric}: the interval is of {count} resamples instead of {RESAMPLES:,}."
            for metric, count in fewer.items()
        ),
    ]
