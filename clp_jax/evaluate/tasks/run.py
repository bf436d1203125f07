"""Score a model on the tasks of this folder, alongside the random and the majority baseline."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.errors import UserError
from clp_jax.evaluate.names import FOLDER, check_tasks
from clp_jax.evaluate.tables import markdown_table
from clp_jax.evaluate.tasks.scores import (
    accuracy,
    confusion_matrix,
    macro_f1,
    score_with_baselines,
)
from clp_jax.limits import BatchSize, LocalPath, Name, PathOrName, Positive
from clp_jax.mesh import inference_dtype, make_mesh


@checked
def evaluate_tasks(
    model_path: PathOrName,
    tasks: Sequence[Name],
    *,
    task_data: LocalPath | None = None,
    batch_size: BatchSize = 8,
    limit: Positive | None = None,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> dict[str, dict[str, Any]]:
    """Score a stored model on multiple-choice tasks, zero-shot.

    The answer with the highest log-likelihood is the prediction; ``accuracy_normalised`` uses the
    log-likelihood per character of the answer instead.

    Args:
        model_path: Hugging Face folder, hub id or run folder.
        tasks: names from `clp_jax.evaluate.names.TASKS`.
        task_data: folder with ``TASK/test.jsonl``; by default the data come from the hub.
        batch_size: sequences that are computed together.
        limit: use only this many examples of each task, the first ones.
        dtype: of the computation, see `clp_jax.mesh.inference_dtype`.
        mesh: where the model is; all devices by default.

    Returns:
        For each task: ``examples``, ``choices``, ``confusion`` (gold rows, predicted columns) and
        ``metrics``: for each metric the score, its stderr, the low and high end of the 95%
        interval, the random and majority baselines, and whether the interval is above both.

    Raises:
        UserError: a task is unknown, its data cannot be read, or the harness is not installed.
    """
    check_tasks(tasks)
    from clp_jax.evaluate.harness import JaxLM

    loaded = load_tasks(tasks, task_data)
    mesh = mesh or make_mesh()
    tokenizer = model_tokenizer(model_path)
    loaded_model = load_model(model_path, mesh=mesh, compute_dtype=inference_dtype(dtype))
    model = JaxLM(loaded_model, tokenizer, batch_size=batch_size, mesh=mesh)
    samples = run_harness(model, loaded, limit)
    return {
        name: _summarise(samples[name], loaded["tasks"][name].config.doc_to_choice)
        for name in tasks
    }


def render_tasks(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the result of `evaluate_tasks` as a Markdown table."""
    return markdown_table(
        ["task", "examples", "metric", "score", "95% interval", "random", "majority", "better"],
        [
            [
                name,
                f"{task['examples']:,}",
                metric,
                f"{score['score']:.3f}",
                f"{score['low']:.3f} to {score['high']:.3f}",
                f"{score['random']:.3f}",
                f"{score['majority']:.3f}",
                "yes" if score["beats_baselines"] else "no",
            ]
            for name, task in results.items()
            for metric, score in task["metrics"].items()
        ],
    )


def load_tasks(tasks: Sequence[str], task_data: str | Path | None) -> Any:
    """The harness's task objects, with their data.

    Raises:
        UserError: the data cannot be read from the folder or the hub.
    """
    from lm_eval.tasks import TaskManager

    # Its warning about `custom_dataset` is for authors of such tasks.
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)
    metadata = {} if task_data is None else {"task_data": str(task_data)}
    manager = TaskManager(include_path=FOLDER, include_defaults=False, metadata=metadata)
    try:
        return manager.load(list(tasks))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The data of {', '.join(tasks)} cannot be read ({' '.join(str(error).split())}): "
            "give a folder with TASK/test.jsonl as task data, or allow access to the hub."
        ) from None


def run_harness(model: Any, tasks: Any, limit: int | None) -> dict[str, list[dict[str, Any]]]:
    """Run a harness model on loaded tasks; the harness's record of each example, by task."""
    from lm_eval.evaluator import evaluate

    return evaluate(model, tasks, limit=limit, bootstrap_iters=0, log_samples=True)["samples"]


def predictions(
    samples: Sequence[Mapping[str, Any]], lengths: Sequence[int] | None = None
) -> list[int]:
    """The choice with the highest log-likelihood of each example.

    Args:
        samples: the harness's records.
        lengths: divisor of each choice's log-likelihood; None: 1.
    """
    likelihoods = np.array([[value for value, _ in sample["filtered_resps"]] for sample in samples])
    return [int(i) for i in (likelihoods / (1 if lengths is None else lengths)).argmax(1)]


def _summarise(samples: Sequence[Mapping[str, Any]], choices: Sequence[str]) -> dict[str, Any]:
    gold = [sample["target"] for sample in samples]
    confusion = confusion_matrix(gold, predictions(samples), len(choices))
    normalised = confusion_matrix(
        gold, predictions(samples, [len(choice) for choice in choices]), len(choices)
    )
    scores = {
        "accuracy": score_with_baselines(confusion, accuracy),
        "accuracy_normalised": score_with_baselines(normalised, accuracy),
        "macro_f1": score_with_baselines(confusion, macro_f1),
    }
    return {
        "examples": len(samples),
        "choices": list(choices),
        "confusion": confusion.tolist(),
        "metrics": {
            name: asdict(score) | {"beats_baselines": score.beats_baselines}
            for name, score in scores.items()
        },
    }
