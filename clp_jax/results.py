"""Files of results: what ``clp-jax evaluate`` and lm-evaluation-harness write, read in one form."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from clp_jax.errors import UserError
from clp_jax.files import read_json
from clp_jax.pages.blocks import UNKNOWN

NORMAL = 1.96
"""Standard errors on each side of a 95% interval, where only those are known."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task; what a file does not say is None.

    Attributes:
        task: its name.
        metric: its name; METRIC,FILTER for filtered answers.
        shots: examples before each question.
        examples: questions scored.
        score: of the model.
        low: lower end of the 95% interval.
        high: its upper end.
        random: the score of uniform guessing.
        majority: the score of the most frequent answer.
        verdict: how it compares with guessing, in words.
    """

    task: str
    metric: str
    shots: int | None
    examples: int | None
    score: int | float
    low: float | None = None
    high: float | None = None
    random: float | None = None
    majority: float | None = None
    verdict: str = "chance is not known"


@dataclass(frozen=True)
class TextScore:
    """Perplexity on one text.

    Attributes:
        name: of the text.
        bits_per_byte: of the text.
        byte_perplexity: 2 to the power of it.
        token_perplexity: per token of the model's own tokenizer.
        tokens_per_word: of that tokenizer.
        low: lower end of the 95% interval of the bits per byte, if known.
        high: its upper end.
    """

    name: str
    bits_per_byte: float
    byte_perplexity: float
    token_perplexity: float
    tokens_per_word: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Results:
    """What was measured about one model.

    Attributes:
        tasks: scores of tasks.
        texts: perplexities.
        answers: what `clp_jax.evaluate_tasks` returned, with the answers to single examples; of a
            task that was asked several times, such as without and with examples, the first.
    """

    tasks: Sequence[TaskScore] = ()
    texts: Sequence[TextScore] = ()
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def updated(self, newer: "Results") -> "Results":
        """All of both; what was measured again is the newer one's."""
        tasks = {(x.task, x.metric, x.shots): x for x in (*self.tasks, *newer.tasks)}
        texts = {x.name: x for x in (*self.texts, *newer.texts)}
        return Results([*tasks.values()], [*texts.values()])

    def main_scores(self) -> list[TaskScore]:
        """One score for each task: the first F1 of classes, or else the first metric."""
        chosen: dict[str, TaskScore] = {}
        for score in self.tasks:
            known = chosen.setdefault(score.task, score)
            if score.metric == "f1" != known.metric:
                chosen[score.task] = score
        return [*chosen.values()]


def read_results(files: Iterable[str | Path]) -> Results:
    """The results of one model.

    Args:
        files: what ``clp-jax evaluate tasks --json``, ``clp-jax evaluate perplexity --json`` or
            lm-evaluation-harness wrote.

    Raises:
        UserError: a file is missing or holds something else.
    """
    tasks: list[TaskScore] = []
    texts: list[TextScore] = []
    answers: dict[str, Mapping[str, Any]] = {}
    for file in files:
        values = read_json(file)
        try:
            if isinstance(values.get("results"), dict):
                tasks += _from_harness(values)
            elif isinstance(values.get("results"), list):
                texts += _from_texts(Path(file), values["results"])
            elif "bits_per_byte" in values:
                texts.append(_text(values.get("data") or Path(file).stem, values))
            else:
                tasks += _from_tasks(values)
                for name, task in values.items():
                    if "documents" in task:
                        answers.setdefault(name, task)
        except (LookupError, TypeError, AttributeError, ValueError):
            raise UserError(
                f"{file} holds no results: give what `clp-jax evaluate tasks --json`, `clp-jax "
                "evaluate perplexity --json` or lm-evaluation-harness has written."
            ) from None
    return Results(tasks, texts, answers)


def _from_tasks(values: Mapping[str, Any]) -> Iterator[TaskScore]:
    for name, task in values.items():
        for metric, found in task["metrics"].items():
            if found["score"] is None:
                continue
            yield TaskScore(
                task=name,
                metric=metric,
                shots=task["num_fewshot"],
                examples=task["examples"],
                **{key: found[key] for key in ("score", "low", "high", "random", "majority")},
                verdict=found["verdict"] or "chance is not known",
            )


def _from_harness(values: Mapping[str, Any]) -> Iterator[TaskScore]:
    for name, found in values["results"].items():
        for key, score in found.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(score, int | float):
                continue
            error = found.get(f"{metric}_stderr,{kind}")
            half = NORMAL * error if isinstance(error, int | float) else math.nan
            known = math.isfinite(half)
            yield TaskScore(
                task=name,
                metric=metric if kind == "none" else key,
                shots=values.get("n-shot", {}).get(name),
                examples=values.get("n-samples", {}).get(name, {}).get("effective"),
                score=score,
                low=score - half if known else None,
                high=score + half if known else None,
            )


def _from_texts(file: Path, measured: Sequence[Mapping[str, Any]]) -> Iterator[TextScore]:
    if len({one["model"] for one in measured}) > 1:
        raise UserError(f"{file} holds figures of several models: measure one model per file.")
    yield from (_text(one["data"] or file.stem, one) for one in measured)


def _text(name: str, values: Mapping[str, Any]) -> TextScore:
    low, high = values.get("intervals", {}).get("bits_per_byte", (None, None))
    return TextScore(
        name=name,
        **{key: values[key] for key in ("bits_per_byte", "byte_perplexity", "token_perplexity")},
        tokens_per_word=values["tokens"] / values["words"],
        low=low,
        high=high,
    )


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """A 95% interval as a cell of a table."""
    return UNKNOWN if low is None or high is None else f"{low:{form}} to {high:{form}}"


def number(value: int | float | None, form: str = ".3f") -> str:
    """A number as a cell of a table."""
    return UNKNOWN if value is None else format(value, form)


TASK_COLUMNS = ("shots", "score", "95% interval", "random", "majority", "in words")
TEXT_COLUMNS = ("bits per byte", "95% interval", "perplexity per byte", "perplexity per token")


def task_row(score: TaskScore) -> tuple[str, ...]:
    """The cells of a score under `TASK_COLUMNS`."""
    return (
        number(score.shots, ","),
        number(score.score),
        interval(score.low, score.high),
        number(score.random),
        number(score.majority),
        score.verdict,
    )


def text_row(score: TextScore) -> tuple[str, ...]:
    """The cells of a perplexity under `TEXT_COLUMNS`."""
    return (
        number(score.bits_per_byte, ".4f"),
        interval(score.low, score.high, ".4f"),
        number(score.byte_perplexity, ",.4g"),
        number(score.token_perplexity, ",.4g"),
    )
