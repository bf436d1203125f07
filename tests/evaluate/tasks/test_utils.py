import json
import os

import datasets
import pytest

pytest.importorskip("lm_eval")
from clp_jax.evaluate.tasks import utils


def write_jsonl(file, rows):
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_germeval_from_a_folder_and_from_the_hub_are_the_same(tmp_path, monkeypatch):
    tweets = [("Hallo |LBR| Welt", "OTHER"), ("Du Depp!", "OFFENSE")]
    write_jsonl(
        tmp_path / "germeval2018" / "test.jsonl",
        [{"text": text, "label": label, "label_fine": "X"} for text, label in tweets],
    )
    hub = datasets.Dataset.from_list(
        [{"text": text, "binary": label, "multi": "X"} for text, label in tweets]
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or hub)
    local = utils.germeval2018(task_data=str(tmp_path), version=1)["test"].to_list()
    assert local == utils.germeval2018()["test"].to_list()
    assert local == [{"text": "Hallo Welt", "label": 0}, {"text": "Du Depp!", "label": 1}]
    assert asked == [(("philschmid/germeval18",), {"split": "test"})]


def test_pawsx_from_a_folder_and_from_the_hub_are_the_same(tmp_path, monkeypatch):
    pairs = [("Er  kam.", "Er ging.", 0), ("", "NS", 1)]
    write_jsonl(
        tmp_path / "pawsx_de" / "test.jsonl",
        [{"text_a": a, "text_b": b, "label": label} for a, b, label in pairs],
    )
    hub = datasets.Dataset.from_list(
        [{"id": 1, "sentence1": a, "sentence2": b, "label": label} for a, b, label in pairs],
        features=datasets.Features(
            id=datasets.Value("int32"),
            sentence1=datasets.Value("string"),
            sentence2=datasets.Value("string"),
            label=datasets.ClassLabel(names=["0", "1"]),
        ),
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or hub)
    local = utils.pawsx_de(task_data=str(tmp_path))["test"].to_list()
    assert local == utils.pawsx_de()["test"].to_list()
    assert local[0] == {"sentence1": "Er kam.", "sentence2": "Er ging.", "label": 0}
    assert len(local) == 2
    assert asked == [(("google-research-datasets/paws-x", "de"), {"split": "test"})]


def test_macro_f1_by_hand():
    assert utils.macro_f1([(0, 0), (0, 1), (1, 1), (1, 1)]) == pytest.approx((2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("null", "line 1: not a JSON object"),
        ("[1]", "line 1: not a JSON object"),
        ("[" * 100_000, "line 1: not JSON"),
        ("1" * 5000, "line 1: not JSON"),
        ('{"text": null, "label": "OTHER"}', "line 1: text is not text"),
        ('{"text": "a"}', "line 1: no field label"),
        ('{"text": "a", "label": ["OTHER"]}', "is not one of OTHER, OFFENSE"),
    ],
)
def test_a_damaged_record_is_reported(tmp_path, line, sentence):
    file = tmp_path / "germeval2018" / "test.jsonl"
    file.parent.mkdir()
    file.write_text(line + "\n")
    with pytest.raises(ValueError, match=sentence):
        utils.germeval2018(task_data=str(tmp_path))


def test_records_in_a_pipe_are_refused(tmp_path):
    (tmp_path / "germeval2018").mkdir()
    os.mkfifo(tmp_path / "germeval2018" / "test.jsonl")
    with pytest.raises(ValueError, match="is not a regular file"):
        utils.germeval2018(task_data=str(tmp_path))
