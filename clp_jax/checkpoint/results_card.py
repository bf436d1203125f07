"""The results of a model in its card, and as metadata that the hub reads."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from clp_jax.checkpoint.card import CARD, read_metadata
from clp_jax.checkpoint.hub import RESULTS
from clp_jax.errors import UserError
from clp_jax.files import read_json, write_json, write_text
from clp_jax.pages import Section, Table
from clp_jax.pages.markdown import render_sections
from clp_jax.results import (
    TASK_COLUMNS,
    TEXT_COLUMNS,
    Results,
    TaskScore,
    TextScore,
    task_row,
    text_row,
)

SECTION = re.compile(r"\n## Results\n.*?(?=\n## |\Z)", re.DOTALL)


def add_results(folder: Path, results: Results) -> None:
    """Write results into a model's folder: ``results.json``, card and the card's metadata.

    Those that the folder already has stay, unless they are measured again.

    Args:
        folder: a Hugging Face folder with a card.
        results: what was measured.

    Raises:
        UserError: the card or the old results cannot be read.
    """
    results = _stored(folder).updated(results)
    stored = {"tasks": map(asdict, results.tasks), "texts": map(asdict, results.texts)}
    write_json(folder / RESULTS, {key: [*scores] for key, scores in stored.items()})
    write_text(folder / CARD, _with_results(folder, results))


def _stored(folder: Path) -> Results:
    file = folder / RESULTS
    if not file.exists():
        return Results()
    values = read_json(file)
    try:
        return Results(
            [TaskScore(**score) for score in values["tasks"]],
            [TextScore(**score) for score in values["texts"]],
        )
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{file} was not written here: remove it to replace it.") from None


def read_card(file: Path) -> ModelCard:
    """A model card.

    Raises:
        UserError: its metadata are not valid.
    """
    try:
        return ModelCard(file.read_text("utf-8"), ignore_metadata_errors=True)
    except Exception as error:  # YAML's errors and the hub's own.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} has no valid metadata ({reason}): fix it.") from None


def _with_results(folder: Path, results: Results) -> str:
    card = read_card(folder / CARD)
    data: ModelCardData = card.data  # type: ignore[assignment]
    found = [*_eval_results(results)]
    new = {_identity(result) for result in found}
    old = [result for result in data.eval_results or [] if _identity(result) not in new]
    data.eval_results = [*old, *found]
    data.model_name = data.model_name or _title(card.text) or folder.name
    data.language = read_metadata(folder).get("language")  # YAML reads the language `no` as false.
    section = "\n" + render_sections([Section("Results", [*_blocks(results)])])
    card.text = SECTION.sub("", card.text).rstrip("\n") + "\n" + section
    return str(card)


def _title(text: str) -> str | None:
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1] if found else None


def _blocks(results: Results) -> Iterator[str | Table]:
    if results.texts:
        yield Table(("text", *TEXT_COLUMNS), [(x.name, *text_row(x)) for x in results.texts])
    if scores := results.main_scores():
        yield Table(
            ("task", "metric", *TASK_COLUMNS),
            [(score.task, score.metric, *task_row(score)) for score in scores],
        )


def model_index(name: str, results: Results) -> list[dict[str, Any]]:
    """The hub's metadata `model-index` of a model; empty without results."""
    found = [*_eval_results(results)]
    return eval_results_to_model_index(name, found) if found else []


def _eval_results(results: Results) -> Iterator[EvalResult]:
    """Results as the hub's metadata `model-index` has them."""
    for text in results.texts:
        metrics = (
            ("bits_per_byte", "bits per byte", text.bits_per_byte),
            ("perplexity", "perplexity per byte", text.byte_perplexity),
        )
        for kind, name, value in metrics:
            yield EvalResult(
                task_type="text-generation",
                dataset_type=text.name,
                dataset_name=text.name,
                metric_type=kind,
                metric_name=name,
                metric_value=round(value, 4),
            )
    for score in results.main_scores():
        shots: dict[str, Any] = {} if score.shots is None else {"num_few_shot": score.shots}
        yield EvalResult(
            task_type="text-generation",
            dataset_type=score.task,
            dataset_name=score.task,
            dataset_args=shots or None,
            metric_type=score.metric,
            metric_name=score.metric,
            metric_value=round(score.score, 4),
        )


def _identity(result: EvalResult) -> tuple[str | None, ...]:
    return result.dataset_name, result.metric_type, result.metric_name, str(result.dataset_args)
