"""Run lm-evaluation-harness on a model, and put intervals and guessing alongside its scores."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.errors import UserError
from clp_jax.evaluate.names import FOLDER, TASKS, check_outputs
from clp_jax.evaluate.tables import markdown_table
from clp_jax.evaluate.tasks.scores import Answers, score_metric
from clp_jax.limits import BatchSize, LocalPath, Name, Natural, PathOrName, Positive
from clp_jax.mesh import inference_dtype, make_mesh

CLUSTERS = ("passage", "flores_passage", "context", "article", "story", "paragraph")
"""Fields with the passage that several questions of a task may share."""

UNSUPPORTED = {
    "UNSAFE_CODE": "runs the programs that a model writes",
    "MULTIMODAL": "asks about images or sound",
}
"""What the harness's marks of tasks say that nothing here serves."""

UNFILTERED = "none"
"""The harness's name for answers as they come."""


class TaskRun(NamedTuple):
    """What the harness was asked, and what it found.

    Attributes:
        tasks: its task objects by name, those of groups included.
        results: its results, as it writes them.
    """

    tasks: Mapping[str, Any]
    results: Mapping[str, Any]


@checked
def evaluate_tasks(
    model_path: PathOrName,
    tasks: Sequence[Name],
    *,
    task_data: LocalPath | None = None,
    include_path: LocalPath | None = None,
    num_fewshot: Natural | None = None,
    limit: Positive | None = None,
    apply_chat_template: bool = False,
    output_path: LocalPath | None = None,
    log_samples: bool = False,
    batch_size: BatchSize = 8,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> dict[str, dict[str, Any]]:
    """Score a stored model on tasks of lm-evaluation-harness.

    Args:
        model_path: Hugging Face folder, hub id or run folder.
        tasks: names of tasks, groups and tags: those of the installed harness, of
            ``include_path``, and of `clp_jax.evaluate.names.TASKS`.
        task_data: folder with ``TASK/test.jsonl`` for our own tasks; by default their data come
            from the hub.
        include_path: folder with further task files.
        num_fewshot: examples with answers before each question; by default the task's number.
        limit: use only this many examples of each task, the first ones.
        apply_chat_template: put each question into the tokenizer's chat template.
        output_path: folder for the harness's own result files.
        log_samples: also write each example and its answers there.
        batch_size: sequences that are computed together.
        dtype: of the computation, see `clp_jax.mesh.inference_dtype`.
        mesh: where the model is; all devices by default.

    Returns:
        For each task: ``examples``, ``num_fewshot``, ``version`` and ``metrics``: for each metric,
        named as by the harness, what `scores.Score` has.

    Raises:
        UserError: a task is unknown, its data cannot be read, or the harness is not installed.
    """
    from clp_jax.evaluate.harness import JaxLM

    check_outputs(output_path, log_samples)
    loaded = load_tasks(task_manager(tasks, include_path, task_data), tasks)
    check_fewshot(loaded, num_fewshot)
    mesh = mesh or make_mesh()
    tokenizer = model_tokenizer(model_path)
    loaded_model = load_model(model_path, mesh=mesh, compute_dtype=inference_dtype(dtype))
    model = JaxLM(loaded_model, tokenizer, batch_size=batch_size, mesh=mesh)
    tracker = None
    if output_path is not None:
        from lm_eval.loggers import EvaluationTracker

        tracker = EvaluationTracker(output_path=str(output_path))
    run = run_harness(
        model,
        loaded,
        limit=limit,
        num_fewshot=num_fewshot,
        apply_chat_template=apply_chat_template,
        evaluation_tracker=tracker,
    )
    if tracker is not None:
        tracker.save_results_aggregated(results=run.results, samples=run.results["samples"])
        for name, samples in run.results["samples"].items() if log_samples else ():
            tracker.save_results_samples(task_name=name, samples=samples)
    return summarise(run)


def task_manager(
    tasks: Sequence[str], include_path: str | Path | None, task_data: str | Path | None
) -> Any:
    """The harness's index of tasks; its own are left out where all names are ours.

    Raises:
        UserError: a name is unknown.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise UserError(f"{include_path} is not a folder: give one with task files.")
    # Its warning about `custom_dataset` is for authors of such tasks.
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)
    folders = [str(folder) for folder in (FOLDER, include_path) if folder is not None]
    manager = TaskManager(
        include_path=folders,
        include_defaults=not set(tasks) <= set(TASKS),
        metadata={} if task_data is None else {"task_data": str(task_data)},
    )
    known = [*TASKS, *manager.all_tasks]
    for name in tasks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5)
            hint = f"did you mean {', '.join(near)}?" if near else "see `lm_eval ls tasks`."
            raise UserError(f"There is no task {name}: {hint}")
    return manager


def load_tasks(manager: Any, names: Sequence[str]) -> Any:
    """The harness's task objects, with their data.

    Raises:
        UserError: the data cannot be read from the folder or the hub, or a task is of a kind that
            is not supported.
    """
    try:
        loaded = manager.load([*dict.fromkeys(names)])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"The data of {', '.join(names)} cannot be read ({' '.join(str(error).split())}): "
            "give a folder with TASK/test.jsonl as task data for our own tasks, or allow access to "
            "the hub, or set HF_HOME to a cache that holds them."
        ) from None
    for name, task in loaded["tasks"].items():
        for flag, need in UNSUPPORTED.items():
            if getattr(task, flag, False):
                raise UserError(f"The task {name} {need}: leave it out.")
    return loaded


def check_fewshot(loaded: Any, num_fewshot: int | None) -> None:
    """Check that every task has more examples than stand before a question.

    Raises:
        UserError: one has not.
    """
    if not num_fewshot:
        return
    for name, task in loaded["tasks"].items():
        examples = len(task.fewshot_docs() or ())
        if examples <= num_fewshot:
            raise UserError(
                f"The task {name} has {examples} examples, too few for {num_fewshot} before each "
                "question: lower num_fewshot."
            )


def run_harness(model: Any, loaded: Any, **options: Any) -> TaskRun:
    """Run a harness model on loaded tasks.

    Args:
        model: the model.
        loaded: what `load_tasks` returned.
        options: those of the harness's ``simple_evaluate``.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    children = {child for names in loaded["group_map"].values() for child in names}
    whole = [group for name, group in loaded["groups"].items() if name not in children]
    single = [task for name, task in loaded["tasks"].items() if name not in children]
    results = simple_evaluate(
        model,
        tasks=[*whole, *single],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        **options,
    )
    return TaskRun(loaded["tasks"], results)


def summarise(run: TaskRun) -> dict[str, dict[str, Any]]:
    """For each task its scores, with intervals and guessing."""
    better, versions = run.results["higher_is_better"], run.results["versions"]
    return {
        name: {
            "examples": run.results["n-samples"][name]["effective"],
            "num_fewshot": run.results["n-shot"][name],
            "version": versions[name],
            "metrics": _metrics(task, run.results["samples"][name], better[name]),
        }
        for name, task in run.tasks.items()
    }


def _metrics(
    task: Any, samples: Sequence[Mapping[str, Any]], better: Mapping[str, bool | None]
) -> dict[str, dict[str, Any]]:
    """The scores of a task; a metric of filtered answers is named METRIC,FILTER."""
    aggregates = task.aggregation()
    found: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(sample["filter"] for sample in samples):
        chosen = [sample for sample in samples if sample["filter"] == kind]
        answers = answers_of(task, [sample["doc"] for sample in chosen])
        for metric in chosen[0]["metrics"]:
            score = score_metric(
                [sample[metric] for sample in chosen],
                aggregates[metric],
                clusters=[_cluster(sample) for sample in chosen],
                answers=answers,
                higher_is_better=better.get(metric) is not False,
            )
            found[metric if kind == UNFILTERED else f"{metric},{kind}"] = score.to_dict()
    return found


def answers_of(task: Any, docs: Sequence[Mapping[str, Any]]) -> Answers | None:
    """The choices of a multiple-choice task; None for other tasks, or if one has no right choice.

    The harness scores questions without a right choice too: as wrong.
    """
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    choices = [[*task.doc_to_choice(doc)] for doc in docs]
    target = task.doc_to_text if task.multiple_input else task.doc_to_target
    gold = []
    for doc, names in zip(docs, choices, strict=True):
        of_doc = target(doc)
        several = of_doc if isinstance(of_doc, list) else [of_doc]
        places = dict(zip(names, range(len(names)), strict=True)) | {
            i: i for i in range(len(names))
        }
        right = [places[one] for one in several if one in places]
        if not right:
            return None
        gold.append(right)
    return Answers(
        counts=np.array([len(names) for names in choices]),
        gold=np.array([several[0] for several in gold]),
        right=np.array([len(several) for several in gold]),
        same=all(names == choices[0] for names in choices),
    )


def _cluster(sample: Mapping[str, Any]) -> str:
    """What an example shares with others: the passage that it asks about, or nothing."""
    doc = sample["doc"]
    passage = next((doc[field] for field in CLUSTERS if isinstance(doc.get(field), str)), None)
    return f"{sample['doc_id']}" if passage is None else passage


def render_tasks(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Render the result of `evaluate_tasks` as a Markdown table."""
    return markdown_table(
        ["task", "examples", "shots", "metric", "score", "95% interval", "random", "majority", ""],
        [
            [
                name,
                f"{task['examples']:,}",
                f"{task['num_fewshot']}",
                metric,
                f"{score['score']:.3f}",
                f"{score['low']:.3f} to {score['high']:.3f}",
                *("-" if x is None else f"{x:.3f}" for x in (score["random"], score["majority"])),
                score["verdict"],
            ]
            for name, task in results.items()
            for metric, score in task["metrics"].items()
        ],
    )
