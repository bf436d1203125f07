"""Test texts are found in documents, whatever their case, accents and punctuation."""

import json
import pickle

import numpy as np
import pytest
import xxhash
from datatrove.data import Document

from clp_jax.data.config import DecontaminateSection
from clp_jax.data.filters.decontamination import (
    Decontaminate,
    build_index,
    normal_words,
    sequence_hashes,
)
from clp_jax.data.samples import Samples
from clp_jax.errors import UserError

LONG = "Die Ausnahme war zwischen Ende 2005 und 2009, als er in Schweden und Serbien spielte."
SHORT = "Der kleine Fluss mündet bei Köln in den Rhein."
SHORTER = "Der Fluss mündet in den Rhein."


@pytest.fixture
def section(tmp_path) -> DecontaminateSection:
    tests = tmp_path / "tests.jsonl"
    tests.write_text("".join(json.dumps({"text": t}) + "\n" for t in (LONG, SHORT, SHORTER)))
    return DecontaminateSection(against=(str(tests),))


@pytest.fixture
def rule(section, tmp_path) -> Decontaminate:
    build_index(section, tmp_path / "index.npy")
    return Decontaminate(section, tmp_path / "index.npy", Samples(tmp_path, "decontaminate"))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (LONG, (False, "13 words of a test")),
        (f"Vorher. {LONG} Nachher.", (False, "13 words of a test")),
        (" ".join(LONG.split()[1:14]), (False, "13 words of a test")),
        (" ".join(LONG.split()[1:13]), True),
        (LONG.upper().replace(" ", " – "), (False, "13 words of a test")),
        (SHORT, (False, "9 words of a test")),
        ("x " * 99 + SHORT.replace("ü", "u").replace("ö", "o\u0308"), (False, "9 words of a test")),
        (SHORT.replace("Köln", "Bonn"), True),
        (SHORTER, True),
        ("", True),
        ("!", True),
    ],
)
def test_verdicts(rule, text, verdict):
    assert rule.filter(Document(text, "0")) == verdict


def test_counts_and_array(section, tmp_path):
    counts = build_index(section, tmp_path / "index.npy")
    assert counts == (2, 1)
    index = np.load(tmp_path / "index.npy")
    assert index.dtype == np.uint64
    assert len(index) == len(LONG.split()) - 12 + 1
    assert (np.diff(index.astype(object)) > 0).all()
    assert sorted(file.name for file in tmp_path.glob("*index*")) == ["index.npy", "index.npy.sums"]


def test_hashes_are_those_of_the_formula():
    words = [b"a", b"b", b"c", b"d"]
    factor = 0x9E3779B97F4A7C15
    expected = [
        sum(xxhash.xxh64_intdigest(words[i + k]) * factor ** (k + 1) for k in range(3)) % 2**64
        for i in range(2)
    ]
    (found,) = sequence_hashes(words, range(3, 4))
    assert found.tolist() == expected
    assert [len(h) for h in sequence_hashes(words, range(2, 9))] == [3, 2, 1]


def test_normal_words():
    text = "Größe: ÉTÉ, e\u0301te\u0301 & I'm_here 3,5"
    assert b" ".join(normal_words(text)) == b"grosse ete ete i m here 3 5"


@pytest.mark.parametrize(
    ("test", "near"),
    [
        (
            "這條河流在科隆附近流入萊茵河，全長八十公里。",
            "這條河流在波恩附近流入多瑙河，全長九十公里。",
        ),
        ("แม่น้ำสายเล็กไหลลงสู่แม่น้ำไรน์ใกล้เมืองโคโลญ", "แม่น้ำสายใหญ่ไหลผ่านเมืองบอนน์ไปยังทะเลเหนือ"),
        (
            "小さな川はケルンの近くでライン川に注いでいる。",
            "大きな川はボンの近くで北海に流れ込んでいる。",
        ),
    ],
)
def test_scripts_without_spaces(tmp_path, test, near):
    (tmp_path / "test.txt").write_text(test)
    section = DecontaminateSection(against=(str(tmp_path / "test.txt"),))
    assert build_index(section, tmp_path / "index.npy") == (1, 0)
    rule = Decontaminate(section, tmp_path / "index.npy", Samples(tmp_path, "decontaminate"))
    assert rule.filter(Document(f"{near}{test}{near}", "0")) is not True
    assert rule.filter(Document(near * 3, "0")) is True


def test_a_field_that_cannot_be_read_is_reported(tmp_path):
    tests = tmp_path / "tests.jsonl"
    tests.write_text(json.dumps({"text": LONG, "second": 7}) + "\n")
    section = DecontaminateSection(against=(str(tests),), text_fields=("text", "second"))
    with pytest.raises(UserError, match="second is int, not a string"):
        build_index(section, tmp_path / "index.npy")


def test_a_short_ngram_needs_no_eight_words(tmp_path):
    (tmp_path / "test.txt").write_text("eins zwei drei vier")
    section = DecontaminateSection(against=(str(tmp_path / "test.txt"),), ngram=3)
    assert build_index(section, tmp_path / "index.npy") == (1, 0)
    rule = Decontaminate(section, tmp_path / "index.npy", Samples(tmp_path, "decontaminate"))
    assert rule.filter(Document("zwei drei vier fünf", "0")) == (False, "3 words of a test")
    assert rule.filter(Document("zwei drei fünf vier", "0")) is True


def test_inputs_may_have_different_fields(section, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"first": LONG, "second": SHORT}) + "\n")
    both = DecontaminateSection(
        against=(*section.against, str(pairs)), text_fields=("text", "first", "second")
    )
    assert build_index(both, tmp_path / "index.npy") == (4, 1)


def test_an_input_with_none_of_the_fields(section, tmp_path):
    section = section.model_copy(update={"text_fields": ("question", "answer")})
    with pytest.raises(UserError, match="question"):
        build_index(section, tmp_path / "index.npy")
    assert not (tmp_path / "index.npy").exists()


def test_tests_without_long_texts(tmp_path):
    (tmp_path / "test.txt").write_text(SHORTER)
    section = DecontaminateSection(against=(str(tmp_path / "test.txt"),))
    with pytest.raises(
        UserError, match="is long enough: name tests with texts of at least 8 words"
    ):
        build_index(section, tmp_path / "index.npy")


def test_it_is_pickled_before_and_after_its_first_document(rule):
    for _ in range(2):
        copy = pickle.loads(pickle.dumps(rule))
        assert copy.filter(Document(LONG, "0")) == rule.filter(Document(LONG, "0"))
        assert rule.filter(Document(LONG, "0")) is not True
