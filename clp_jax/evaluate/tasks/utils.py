"""The functions that the task files of this folder name: their data and the macro-averaged F1.

The folder works with lm-evaluation-harness alone: nothing here imports the rest of the package.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from sklearn.metrics import f1_score


def germeval2018(task_data: str | None = None, **_: object) -> dict[str, datasets.Dataset]:
    """The test split of GermEval 2018 with the fields text and label (1: offensive).

    The line-break marker ``|LBR|`` in tweets becomes a space.

    Args:
        task_data: folder that holds ``germeval2018/test.jsonl`` with the fields text and label
            (OTHER or OFFENSE); by default the data come from the hub.

    Raises:
        OSError: the file is missing, or the hub cannot be reached.
        ValueError: the file is damaged.
    """
    if task_data is None:
        rows, label = datasets.load_dataset("philschmid/germeval18", split="test"), "binary"
    else:
        label = "label"
        rows = _read_jsonl(Path(task_data, "germeval2018", "test.jsonl"), ["text"], label)
    return _test_split(
        {
            "text": _one_line(row["text"].replace("|LBR|", " ")),
            "label": _position(row[label], ("OTHER", "OFFENSE")),
        }
        for row in rows
    )


def pawsx_de(task_data: str | None = None, **_: object) -> dict[str, datasets.Dataset]:
    """The German test split of PAWS-X with the fields sentence1, sentence2, label (1: paraphrase).

    Every pair is kept, including the few with an empty sentence.

    Args:
        task_data: folder that holds ``pawsx_de/test.jsonl`` with the fields text_a, text_b and
            label (0 or 1); by default the data come from the hub.

    Raises:
        OSError: the file is missing, or the hub cannot be reached.
        ValueError: the file is damaged.
    """
    if task_data is None:
        rows = datasets.load_dataset("google-research-datasets/paws-x", "de", split="test")
        first, second = "sentence1", "sentence2"
    else:
        first, second = "text_a", "text_b"
        rows = _read_jsonl(Path(task_data, "pawsx_de", "test.jsonl"), [first, second], "label")
    return _test_split(
        {
            "sentence1": _one_line(row[first]),
            "sentence2": _one_line(row[second]),
            "label": _position(row["label"], (0, 1)),
        }
        for row in rows
    )


def macro_f1(items: Sequence[tuple[int, int]]) -> float:
    """Mean F1 over the classes, from pairs of gold and predicted class."""
    gold, predicted = zip(*items, strict=True)
    return float(f1_score(gold, predicted, average="macro"))


def _read_jsonl(file: Path, texts: Sequence[str], label: str) -> list[dict[str, Any]]:
    rows = []
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is not a regular file")
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number}: not a JSON object")
            if missing := [field for field in (*texts, label) if field not in row]:
                raise ValueError(f"{file}, line {number}: no field {', '.join(missing)}")
            for field in texts:
                if not isinstance(row[field], str):
                    raise ValueError(f"{file}, line {number}: {field} is not text")
            rows.append(row)
    return rows


def _test_split(rows: Iterable[Mapping[str, Any]]) -> dict[str, datasets.Dataset]:
    examples = list(rows)
    if not examples:
        raise ValueError("there are no examples")
    return {"test": datasets.Dataset.from_list(examples)}


def _position(label: Any, labels: Sequence[Any]) -> int:
    if label not in labels:
        raise ValueError(f"the label {label!r} is not one of {', '.join(map(str, labels))}")
    return labels.index(label)


def _one_line(text: str) -> str:
    return " ".join(text.split())
