"""Planted faults are found, and good text is left alone: the recipe as a whole, in numbers."""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest

from clp_jax.quickstart.sentences import documents

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = (
    "Die Ausnahme war zwischen Ende 2005 und 2009, als er in Schweden und Serbien spielte.",
    "Der Fluss ist ein linker Nebenfluss der Donau und mündet nach achtzig Kilometern in sie.",
)


@pytest.fixture
def planted(monkeypatch):
    """The script that makes the corpus, as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import planted_corpus

    yield planted_corpus
    del sys.modules["planted_corpus"], sys.modules["good_text"]


def write(file: Path, texts: Iterable[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def made_up(language: str, count: int) -> list[str]:
    texts = documents(language, 0)
    return ["\n".join(islice(texts, 4)) for _ in range(count)]


@pytest.mark.slow
def test_made_up_text(planted, tmp_path):
    rows = planted.run(
        write(tmp_path / "de.jsonl", made_up("de", 200)),
        write(tmp_path / "en.jsonl", made_up("en", 10)),
        [write(tmp_path / "tests.jsonl", TESTS)],
        documents=200,
        of_each=10,
    )
    assert len(rows) == len(planted.KINDS)
    for row in rows:
        assert (row.recall, row.precision) == (1, 1), row


MEASURED = {
    "English": (1.0, 0.938),
    "boilerplate lines": (1.0, 1.0),
    "wrong encoding": (0.967, 1.0),
    "repetition": (1.0, 0.732),
    "symbols": (1.0, 0.789),
    "personal data": (1.0, 1.0),
    "copies": (1.0, 1.0),
    "copies with other words": (1.0, 1.0),
    "quotations": (1.0, 0.526),
    "test texts": (1.0, 1.0),
}
"""Recall and precision; what is touched besides are tables, and law and debates that repeat."""


@pytest.mark.slow
def test_real_text(planted, shared_data):
    rows = planted.run(
        str(shared_data / "corpora/de/train.jsonl.zst"),
        str(shared_data / "corpora/en/train.jsonl.zst"),
        [str(file) for file in sorted(shared_data.glob("tasks/*/test.jsonl"))],
        documents=900,
        of_each=30,
    )
    found = {row.kind: (round(row.recall, 3), round(row.precision, 3)) for row in rows}
    assert found == MEASURED


def test_good_text_of_ten_kinds_in_six_languages_is_left_as_it_is(planted, tmp_path):
    kept = planted.kept_as_they_are(5, tmp_path)
    assert len(kept) == 60
    assert {key: value for key, value in kept.items() if value != (5, [])} == {}


@pytest.mark.slow
def test_a_fault_that_is_not_fixed_is_seen(planted, tmp_path, monkeypatch):
    monkeypatch.setitem(planted.KINDS, "none", ("quality", lambda given: (given.good, None)))
    text = write(tmp_path / "de.jsonl", made_up("de", 60))
    rows = planted.run(text, text, [write(tmp_path / "tests.jsonl", TESTS)], 60, 2)
    assert {row.kind: row.recall for row in rows} == dict.fromkeys(planted.KINDS, 1.0) | {
        "none": 0.0
    }
