import os

import datasets
import pytest

pytest.importorskip("lm_eval")
from clp_jax.evaluate.tasks.own import data

from .published import LABELS, made, write_lines, write_published

FIELDS = {
    "germeval2017": ("text", None, "sentiment"),
    "gnad10": ("text", None, "label"),
    "pawsx_de": ("sentence1", "sentence2", "label"),
    "xnli_de": ("premise", "hypothesis", "label"),
    "xstance_de": ("comment", None, "label"),
}
"""The hub's names of the fields that `made` fills; GermEval 2018 has a test of its own."""


@pytest.fixture
def hub(monkeypatch):
    """The hub as a dictionary of splits, and what was asked of it."""
    splits, asked = {}, []

    def load_dataset(**options):
        asked.append(options)
        return splits[options["split"]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return splits, asked


@pytest.mark.parametrize("name", FIELDS)
def test_the_published_files_and_the_hub_are_the_same(tmp_path, hub, name):
    write_published(tmp_path, count=9)
    splits, asked = hub
    first, second, field = FIELDS[name]
    rows = []
    for i, (a, b, label) in enumerate(made(name, 9, "test")):
        text = f"{a}; {b}" if name == "gnad10" else a
        row = {first: text, field: label if name == "germeval2017" else LABELS[name].index(label)}
        rows.append(row | ({second: b} if second else {}) | {"question": f"Frage {i % 20}?"})
    splits["test"] = splits["train"] = splits["validation"] = datasets.Dataset.from_list(rows)
    local = data.load(name, task_data=str(tmp_path), version=1)
    remote = data.load(name)
    assert local["test"].to_list() == remote["test"].to_list() == remote["train"].to_list()
    assert len(local["train"]) == 0
    assert {row["label"] for row in local["test"]} <= set(range(len(LABELS[name])))
    assert asked[0] == data.SOURCES[name].hub | {"split": "test"}


def test_germeval_2018_has_two_labels_and_single_spaces(tmp_path):
    tweets = [("Hallo |LBR| Welt", "OTHER", "OTHER"), ("Du  Depp!", "OFFENSE", "INSULT")]
    write_lines(tmp_path / "germeval2018" / "test.tsv", ["\t".join(tweet) for tweet in tweets])
    coarse = data.load("germeval2018_coarse", task_data=str(tmp_path))["test"].to_list()
    fine = data.load("germeval2018_fine", task_data=str(tmp_path))["test"].to_list()
    assert coarse == [{"text": "Hallo Welt", "label": 0}, {"text": "Du Depp!", "label": 1}]
    assert fine == [{"text": "Hallo Welt", "label": 0}, {"text": "Du Depp!", "label": 2}]


def test_the_real_data_are_read(shared_data):
    for name, count in {
        "germeval2018_coarse": 3532,
        "germeval2018_fine": 3532,
        "pawsx_de": 2000,
    }.items():
        splits = data.load(name, task_data=str(shared_data / "tasks"))
        assert len(splits["test"]) == count
        assert len(splits["train"]) >= 2000


def test_plain_text_stays_as_it_is(tmp_path):
    write_published(tmp_path, count=1)
    found = data.load("oscar_de", task_data=str(tmp_path))["test"].to_list()
    assert found == [{"text": "Es regnet.\nOft."}]


def test_macro_f1_by_hand():
    assert data.macro_f1([(0, 0), (0, 1), (1, 1), (1, 1)]) == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("null", "line 1: not a JSON object"),
        ("[1]", "line 1: not a JSON object"),
        ("[" * 100_000, "line 1: not JSON"),
        ("1" * 5000, "line 1: not JSON"),
        ('{"text": 1, "label": "OTHER"}', "line 1: text is not text"),
        ('{"text": "a"}', "line 1: no field binary or label"),
        ('{"text": "a", "label": ["OTHER"]}', "is not one of OTHER, OFFENSE"),
        ('{"text": "a", "label": 2}', "the label 2 is not one of OTHER, OFFENSE"),
    ],
)
def test_a_damaged_record_is_reported(tmp_path, line, sentence):
    write_lines(tmp_path / "germeval2018" / "test.jsonl", [line])
    with pytest.raises(ValueError, match=sentence):
        data.load("germeval2018_coarse", task_data=str(tmp_path))


def test_a_row_of_a_table_that_is_too_short_is_reported(tmp_path):
    write_lines(tmp_path / "gnad10" / "test.csv", ["Web;'Das Netz'", "", "Sport"])
    with pytest.raises(ValueError, match=r"test\.csv, line 3: no field text"):
        data.load("gnad10", task_data=str(tmp_path))


def test_records_in_a_pipe_are_refused(tmp_path):
    (tmp_path / "germeval2018").mkdir()
    os.mkfifo(tmp_path / "germeval2018" / "test.jsonl")
    with pytest.raises(ValueError, match="is not a regular file"):
        data.load("germeval2018_coarse", task_data=str(tmp_path))
