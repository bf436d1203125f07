"""Find the tasks of the harness and our own by name, and load their data."""

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clp_jax.errors import UserError
from clp_jax.evaluate.names import FOLDER, PROMPTS, RENAMED, TASKS

UNSUPPORTED = {
    "UNSAFE_CODE": "runs the programs that a model writes",
    "MULTIMODAL": "asks about images or sound",
}
"""What the harness's marks of tasks say that nothing here serves."""

FILES = ("arrow", "csv", "json", "parquet", "text")
"""Data sets that are files named by the task."""


def task_manager(
    tasks: Sequence[str], include_path: str | Path | None, task_data: str | Path | None
) -> Any:
    """The harness's index of tasks; its own are left out where all names are ours.

    Raises:
        UserError: a name is unknown.
    """
    from lm_eval.tasks import TaskManager

    for name in tasks:
        if name in RENAMED:
            raise UserError(f"The task {name} is {RENAMED[name]} now: use that name.")
    if include_path is not None and not Path(include_path).is_dir():
        raise UserError(f"{include_path} is not a folder: give one with task files.")
    # Its warning about `custom_dataset` is for authors of such tasks.
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)
    ours = {*TASKS, *PROMPTS, "paper"}
    manager = TaskManager(
        include_path=[str(folder) for folder in (FOLDER, include_path) if folder is not None],
        include_defaults=not set(tasks) <= ours,
        metadata={} if task_data is None else {"task_data": str(task_data)},
    )
    for name in tasks:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=5)
            hint = f"did you mean {', '.join(near)}?" if near else "see `lm_eval ls tasks`."
            raise UserError(f"There is no task {name}: {hint}")
    return manager


def load_tasks(manager: Any, names: Sequence[str]) -> Any:
    """The harness's task objects, with their data.

    Raises:
        UserError: the data cannot be read from the folder or the hub, lack a field or are empty; a
            task is named twice, or of a kind that is not supported.
    """
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError

    loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in dict.fromkeys(names):
        try:
            found = manager.load([name])
        except (OSError, ValueError, KeyError, RuntimeError, DatasetsError) as error:
            raise UserError(_unreadable(manager, name, error)) from None
        except IndexError:
            raise UserError(
                f"The task {name} has no examples, or a choice without text: look at its data set."
            ) from None
        except TemplateError as error:
            raise UserError(
                f"The task {name} uses a field that its data lack ({error}): compare the fields "
                "of its file with those of its data set."
            ) from None
        except Exception as error:  # A task's file can name anything, its own functions too.
            raise UserError(
                f"The task {name} cannot be loaded ({type(error).__name__}: {error}): look at its "
                "file and its data set."
            ) from None
        for task in found["tasks"]:
            if task in loaded["tasks"]:
                raise UserError(f"The task {task} is named twice: leave it or its group out.")
        for kind, values in found.items():
            loaded[kind].update(values)
    for name, task in loaded["tasks"].items():
        for flag, need in UNSUPPORTED.items():
            if getattr(task, flag, False):
                raise UserError(f"The task {name} {need}: leave it out.")
    return loaded


def _unreadable(manager: Any, name: str, error: Exception) -> str:
    """The sentence about data that cannot be read: which, and where a copy can be."""
    fault = " ".join(str(error).split())
    if name.startswith("clp_") or name == "paper":
        return (
            f"The data of {name} cannot be read ({fault}): give a folder with NAME/test.jsonl as "
            "task data, or allow access to the hub, or set HF_HOME to a cache that holds them."
        )
    fields = manager.task_index[name].cfg or {}
    path = fields.get("dataset_path", "its data set")
    if path in FILES:
        return f"The files of the task {name} cannot be read ({fault}): see its dataset_kwargs."
    return (
        f"The task {name} needs {path}, which cannot be read ({fault}): allow access to the hub, "
        "or set HF_HOME to a cache that holds it, or give a task file as include path whose "
        "dataset_path is a local copy."
    )


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
                "question: lower num_fewshot, or give more, such as train.jsonl in the task data."
            )


def check_choices(loaded: Any, model: Any) -> None:
    """Check that a model's tokenizer has tokens for every choice.

    Args:
        loaded: what `load_tasks` returned.
        model: a model of the harness.

    Raises:
        UserError: a choice has none; it would always be the likeliest.
    """
    for name, task in loaded["tasks"].items():
        if task.OUTPUT_TYPE != "multiple_choice" or task.multiple_input:
            continue
        choices = {choice for doc in task.eval_docs for choice in task.doc_to_choice(doc)}
        for choice in sorted(choices):
            answer = task.config.target_delimiter + choice
            if not choice.strip() or not model.tok_encode(answer, add_special_tokens=False):
                raise UserError(
                    f"The choice {choice!r} of the task {name} has no tokens in the model's "
                    "tokenizer: change the choice, or leave the task out."
                )
