"""Run lm-evaluation-harness on a model."""

import inspect
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.errors import UserError
from clp_jax.evaluate.names import check_outputs
from clp_jax.evaluate.tasks.calibrate import calibrated
from clp_jax.evaluate.tasks.load import check_choices, check_fewshot, load_tasks, task_manager
from clp_jax.evaluate.tasks.report import Samples, summarise
from clp_jax.limits import BatchSize, LocalPath, Name, Natural, PathOrName, Positive
from clp_jax.mesh import inference_dtype, make_mesh


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
    calibrate: bool = False,
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
            ``include_path``, and our own: `clp_jax.evaluate.names.TASKS` and their ``PROMPTS``.
        task_data: folder with the data of our own tasks, see `own.data.load`; by default they come
            from the hub.
        include_path: folder with further task files.
        num_fewshot: examples with answers before each question; by default the task's number.
        limit: use only this many examples of each task, the first ones.
        apply_chat_template: put each question into the tokenizer's chat template.
        calibrate: score the choices also per byte and calibrated, see `calibrate.calibrated`; the
            further metrics are ``acc_NAME``, and ``f1_NAME`` in classification.
        output_path: folder for the harness's own result files.
        log_samples: also write each example and its answers there.
        batch_size: sequences of 256 tokens that are computed together, or more of shorter ones.
        dtype: of the computation, see `clp_jax.mesh.inference_dtype`.
        mesh: where the model is; all devices by default.

    Returns:
        For each task: ``examples``, ``num_fewshot``, ``version``, ``cut_examples`` (how many are
        longer than the model's context, which cuts their left end) and ``dtype`` of the
        computation; ``metrics``: for each metric, named as by the harness, what `scores.Score` has;
        ``classes``: for each class of a classification what `scores.score_classes` returns; and for
        `compare_results` ``documents``, a hash of the examples, and ``passages``, the passage of
        each by number.

    Raises:
        UserError: a task is unknown, its data cannot be read, a choice has no tokens, or the
            harness is not installed.
    """
    from clp_jax.evaluate.harness import JaxLM

    check_outputs(output_path, log_samples)
    loaded = load_tasks(task_manager(tasks, include_path, task_data), tasks)
    check_fewshot(loaded, num_fewshot)
    mesh = mesh or make_mesh()
    tokenizer = model_tokenizer(model_path)
    loaded_model = load_model(model_path, mesh=mesh, compute_dtype=inference_dtype(dtype))
    model = JaxLM(loaded_model, tokenizer, batch_size=batch_size, mesh=mesh)
    check_choices(loaded, model)
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
    samples = run.results["samples"]
    found = summarise(
        run.results,
        run.tasks,
        {name: calibrated(model, task, samples[name]) for name, task in run.tasks.items()}
        if calibrate
        else None,
    )
    cut = {name: count_cut(model, samples[name]) for name in found}
    if tracker is not None:  # It turns the samples into text where they are.
        tracker.save_results_aggregated(results=run.results, samples=samples)
        for name in samples if log_samples else ():
            tracker.save_results_samples(task_name=name, samples=samples[name])
    precision = jnp.dtype(loaded_model.dtype).name
    return {
        name: task | {"cut_examples": cut[name], "dtype": precision} for name, task in found.items()
    }


def run_harness(model: Any, loaded: Any, **options: Any) -> TaskRun:
    """Run a harness model on loaded tasks.

    Args:
        model: the model.
        loaded: what `load_tasks` returned.
        options: those of the harness's ``simple_evaluate``.

    Raises:
        UserError: the harness cannot ask or score an example of the tasks.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    children = {child for names in loaded["group_map"].values() for child in names}
    whole = [group for name, group in loaded["groups"].items() if name not in children]
    single = [task for name, task in loaded["tasks"].items() if name not in children]
    try:
        results = simple_evaluate(
            model,
            tasks=[*whole, *single],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
            **options,
        )
    except Exception as error:
        files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)}
        if inspect.getfile(type(model)) in files:
            raise
        raise UserError(
            f"An example of {', '.join(loaded['tasks'])} cannot be asked or scored "
            f"({type(error).__name__}: {error}): look at the tasks' files and data sets."
        ) from None
    return TaskRun(loaded["tasks"], results)


def count_cut(model: Any, samples: Samples) -> int:
    """How many examples have a question that, with an answer, is longer than the context."""

    def too_long(text: str) -> bool:
        # A token has at least one byte, so most texts need no encoding.
        return len(text.encode()) > model.max_length and (
            len(model.tok_encode(text)) > model.max_length + 1
        )

    return sum(
        any(
            isinstance(answer, str) and too_long(context + answer)
            for context, answer in (pair for pair in sample["arguments"] if len(pair) == 2)
        )
        for sample in samples
    )
