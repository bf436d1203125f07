"""The data of the task files of this folder, and the macro-averaged F1 that they name.

`lm_eval --include_path THIS_FOLDER --tasks clp_xnli_de --metadata '{"task_data": "FOLDER"}'` works
too: nothing here imports the rest of the package.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from sklearn.metrics import f1_score


class Source(NamedTuple):
    """Where the examples of a task come from, and how they are laid out.

    Attributes:
        folder: name of the folder of local files.
        hub: arguments of ``datasets.load_dataset``.
        train: the split of the hub for examples before a question; None if there is none.
        texts: fields of an example, each with the names it has in the published layouts.
        label: the names of the label; empty for plain text.
        labels: spellings of the labels in the order of their numbers; numbers are read, too.
        columns: names of the columns of a published table without a header.
        dialect: how that table is written, for `csv.reader`.
    """

    folder: str
    hub: Mapping[str, Any]
    texts: Mapping[str, Sequence[str]]
    train: str | None = "train"
    label: Sequence[str] = ()
    labels: Sequence[str] = ()
    columns: Sequence[str] = ()
    dialect: Mapping[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}


SENTENCES = {
    "sentence1": ("sentence1", "text_a"),
    "sentence2": ("sentence2", "text_b"),
}
GERMEVAL2018 = Source(
    folder="germeval2018",
    hub={"path": "philschmid/germeval18"},
    texts={"text": ("text",)},
    columns=("text", "binary", "multi"),
)
SOURCES = {
    "germeval2017": Source(
        folder="germeval2017",
        hub={"path": "malteos/germeval2017"},
        texts={"text": ("text",)},
        label=("sentiment",),
        labels=("positive", "negative", "neutral"),
        columns=("url", "text", "relevance", "sentiment", "aspects"),
    ),
    "germeval2018_coarse": GERMEVAL2018._replace(
        label=("binary", "label"), labels=("OTHER", "OFFENSE")
    ),
    "germeval2018_fine": GERMEVAL2018._replace(
        label=("multi", "label_fine"), labels=("OTHER", "ABUSE", "INSULT", "PROFANITY")
    ),
    "gnad10": Source(
        folder="gnad10",
        hub={"path": "community-datasets/gnad10"},
        texts={"text": ("text",)},
        label=("label",),
        labels=(
            *("Web", "Panorama", "International", "Wirtschaft", "Sport"),
            *("Inland", "Etat", "Wissenschaft", "Kultur"),
        ),
        columns=("label", "text"),
        dialect={"delimiter": ";", "quotechar": "'"},
    ),
    "pawsx_de": Source(
        folder="pawsx_de",
        hub={"path": "google-research-datasets/paws-x", "name": "de"},
        train="validation",
        texts=SENTENCES,
        label=("label",),
        labels=("0", "1"),
    ),
    "xnli_de": Source(
        folder="xnli_de",
        hub={"path": "facebook/xnli", "name": "de"},
        train="validation",
        texts={"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "sentence2")},
        label=("label", "gold_label"),
        labels=("entailment", "neutral", "contradiction"),
    ),
    "xstance_de": Source(
        folder="xstance_de",
        hub={"path": "strombergnlp/x-stance", "name": "de"},
        train="validation",
        texts={"question": ("question",), "comment": ("comment",)},
        label=("label",),
        labels=("AGAINST", "FAVOR"),
    ),
    "oscar_de": Source(
        folder="oscar_de",
        hub={
            "path": "malteos/wechsel_de",
            "data_files": {"test": "valid.random_1636.json.gz"},
        },
        train=None,
        texts={"text": ("text",)},
    ),
}
"""The data sets by the name that the task files give."""


def load(source: str, task_data: str | None = None, **_: object) -> dict[str, datasets.Dataset]:
    """The splits test and train of a data set, with its text fields and the number ``label``.

    Whitespace in texts becomes single spaces, and so does the line-break marker ``|LBR|`` of
    GermEval's tweets; texts without labels stay as they are. Rows of other languages are left out
    where a field ``language`` names them.

    Args:
        source: the name in `SOURCES`.
        task_data: folder that holds ``FOLDER/test.jsonl``, ``.tsv`` or ``.csv``, and ``train`` of
            the same kind for examples before a question; by default the data come from the hub.

    Raises:
        OSError: a file is missing, or the hub cannot be reached.
        ValueError: a file is damaged.
    """
    layout = SOURCES[source]
    if task_data is None:
        splits = {"test": "test"} | ({} if layout.train is None else {"train": layout.train})
        rows = {
            split: [*enumerate(datasets.load_dataset(**layout.hub, split=name), 1)]
            for split, name in splits.items()
        }
        places = dict.fromkeys(rows, layout.hub["path"])
    else:
        folder = Path(task_data, layout.folder)
        files = {"test": _file(folder, "test"), "train": _file(folder, "train")}
        if files["test"] is None:
            raise FileNotFoundError(f"there is no {folder / 'test.jsonl'}, .tsv or .csv")
        places = {split: str(file) for split, file in files.items() if file is not None}
        rows = {split: [*_read(Path(file), layout)] for split, file in places.items()}
    found = {
        split: [
            _example(row, layout, f"{places[split]}, line {number}")
            for number, row in numbered
            if row.get("language", "de") == "de"
        ]
        for split, numbered in rows.items()
    }
    if not found["test"]:
        raise ValueError(f"{places['test']} has no examples")
    found.setdefault("train", [])
    return {split: datasets.Dataset.from_list(examples) for split, examples in found.items()}


def macro_f1(items: Sequence[tuple[int, int]]) -> float:
    """Mean F1 over the classes, from pairs of gold and predicted class."""
    gold, predicted = zip(*items, strict=True)
    return float(f1_score(gold, predicted, average="macro"))


def _file(folder: Path, split: str) -> Path | None:
    candidates = [folder / f"{split}.{kind}" for kind in ("jsonl", "tsv", "csv")]
    return next((file for file in candidates if file.exists()), None)


def _read(file: Path, layout: Source) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows of a file, with the numbers of their lines."""
    if not file.is_file():
        raise ValueError(f"{file} is not a regular file")
    with file.open(encoding="utf-8", newline="" if file.suffix == ".csv" else None) as lines:
        if file.suffix == ".jsonl":
            for number, line in enumerate(lines, 1):
                yield number, _parse(line, f"{file}, line {number}")
        else:
            table = csv.reader(lines, **layout.dialect)
            try:
                names = layout.columns or next(table, [])
                for cells in filter(None, table):
                    yield table.line_num, dict(zip(names, cells, strict=False))
            except csv.Error as error:
                raise ValueError(f"{file}, line {table.line_num}: {error}") from None


def _parse(line: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{place}: not a JSON object")
    return row


def _example(row: Mapping[str, Any], layout: Source, place: str) -> dict[str, Any]:
    example: dict[str, Any] = {}
    for field, names in layout.texts.items():
        text = _field(row, names, place)
        if not isinstance(text, str):
            raise ValueError(f"{place}: {field} is not text")
        example[field] = " ".join(text.replace("|LBR|", " ").split()) if layout.label else text
    if layout.label:
        example["label"] = _number(_field(row, layout.label, place), layout.labels, place)
    return example


def _field(row: Mapping[str, Any], names: Sequence[str], place: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise ValueError(f"{place}: no field {' or '.join(names)}")


def _number(label: Any, labels: Sequence[str], place: str) -> int:
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
        return label
    if label not in labels:
        raise ValueError(f"{place}: the label {label!r} is not one of {', '.join(labels)}")
    return labels.index(label)
