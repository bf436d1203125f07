import json

import numpy as np

from clp_jax.vocabulary import compare_vocabularies, match_vocabularies


def test_classes_of_ids():
    source = {"a": 0, "b": 1, "c": 7}
    target = {"c": 0, "x": 2, "a": 3, "<added>": 6}
    report = match_vocabularies(source, target)
    assert report.target_ids.tolist() == [0, 3]
    assert report.source_ids.tolist() == [7, 0]
    assert report.missing_ids.tolist() == [2, 6]
    assert report.gap_ids.tolist() == [1, 4, 5]
    assert (report.source_size, report.target_size) == (3, 4)
    assert (report.source_rows, report.target_rows) == (8, 7)
    assert (report.source_share, report.target_share) == (2 / 3, 2 / 4)
    assert report.examples == {"shared": ["c", "a"], "source": ["b"], "target": ["x", "<added>"]}


def test_only_the_same_string_is_the_same_token():
    report = match_vocabularies({"Ġhaus": 0, "Der": 1}, {"▁haus": 0, "der": 1, "Der": 2})
    assert report.target_ids.tolist() == [2]


def test_two_names_of_one_id_are_one_row():
    report = match_vocabularies({"a": 0, "b": 1}, {"a": 0, "alias": 0, "c": 1})
    assert report.target_ids.tolist() == [0]
    assert report.missing_ids.tolist() == [1]
    assert report.target_size == 2


def test_nothing_in_common_and_nothing_at_all():
    assert len(match_vocabularies({"a": 0}, {"b": 0}).target_ids) == 0
    empty = match_vocabularies({}, {})
    assert (empty.target_rows, empty.target_share) == (0, 0.0)


def test_report_in_text_and_json():
    report = match_vocabularies({"a": 0, "b\n": 1}, {"a": 0, "c": 2})
    text = str(report)
    assert "50.0% of the target" in text
    assert "1 ids without a token" in text
    assert "'b\\n'" in text
    assert len(text.splitlines()) < 24
    assert json.loads(json.dumps(report.to_dict()))["missing"] == 1


def test_real_tokenizers(shared_data):
    folder = shared_data / "tokenizers"
    report = compare_vocabularies(folder / "gpt2", folder / "de_bpe50k_focus")
    english = json.loads((folder / "gpt2" / "vocab.json").read_text("utf-8"))
    german = json.loads((folder / "de_bpe50k_focus" / "tokenizer.json").read_text("utf-8"))
    added = {token["content"] for token in german["added_tokens"]}
    shared = english.keys() & (german["model"]["vocab"].keys() | added)
    assert len(report.target_ids) == len(shared) > 10_000
    names = {id: token for token, id in english.items()}
    assert {names[id] for id in report.source_ids.tolist()} == shared
    every_id = np.concatenate([report.target_ids, report.missing_ids, report.gap_ids])
    assert sorted(every_id.tolist()) == list(range(report.target_rows))
