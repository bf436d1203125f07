import json

import numpy as np
import pytest

from clp_jax.errors import UserError
from clp_jax.transfer import text as module
from clp_jax.transfer.text import draw_text


def write(file, documents):
    file.write_text("".join(json.dumps({"de": document}) + "\n" for document in documents))
    return str(file)


@pytest.fixture
def limits(monkeypatch):
    def limit(**values):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)

    return limit


def test_a_small_text_is_used_whole_and_in_order(tmp_path):
    files = [write(tmp_path / f"{i}.jsonl", [f"{i} {j}" for j in range(5)]) for i in range(2)]
    found = draw_text(files, "de", seed=0)
    assert found.documents == [f"{i} {j}" for i in range(2) for j in range(5)]
    assert found.to_dict() == {"documents": 10, "of": 10, "cut": []}


def test_every_document_is_drawn_equally_often(tmp_path, limits):
    """The chance of each of 40 documents to be among 10, over 100 seeds."""
    limits(MOST_KEPT=30)
    files = [write(tmp_path / f"{i}.jsonl", [f"{i}{j:02d}" for j in range(20)]) for i in range(2)]
    drawn = [draw_text(files, "de", seed).documents for seed in range(100)]
    assert all(len(documents) == 10 and documents == sorted(documents) for documents in drawn)
    counts = np.unique(np.concatenate(drawn), return_counts=True)[1]
    assert len(counts) == 40
    # Binomial with mean 25 and standard deviation 4.3.
    assert counts.min() > 25 - 4 * 4.3
    assert counts.max() < 25 + 4 * 4.3
    assert draw_text(files, "de", 7).documents == drawn[7] != drawn[8]


def test_a_long_input_leaves_room_for_the_others(tmp_path, limits):
    """Each gets an equal part of what may be read, and what the others leave."""
    limits(MOST_READ=60)
    sizes = (2, 100, 100)
    files = [
        write(tmp_path / f"{i}.jsonl", [f"{i}{j:03d}" for j in range(size)])
        for i, size in enumerate(sizes)
    ]
    found = draw_text(files, "de", seed=0)
    of = [sum(document[0] == str(i) for document in found.documents) for i in range(3)]
    assert of == [2, 7, 6]
    assert found.read == 15
    assert list(found.cut) == files[1:]


def test_of_a_long_document_a_random_part_is_used(tmp_path, limits):
    limits(LONGEST_DOCUMENT=20)
    letters = "abcdefghijklmnopqrstuvwxyz" * 4
    file = write(tmp_path / "a.jsonl", [letters] * 30)
    parts = draw_text([file], "de", seed=0).documents
    assert {len(part) for part in parts} == {20}
    assert all(part in letters for part in parts)
    assert len({*parts}) > 10


def test_of_the_hub_the_beginning_is_read(tmp_path, monkeypatch, limits):
    limits(MOST_KEPT=10)
    rows = ({"de": f"{i:05d}"} for i in range(10**9))
    monkeypatch.setattr("clp_jax.data.io.readers.hub_rows", lambda *_: rows)
    found = draw_text(["hf://data/set", write(tmp_path / "a.jsonl", ["x", "y"])], "de", seed=0)
    assert found.read == 4
    assert found.cut == ["hf://data/set"]


def test_one_document_cannot_be_halved(tmp_path):
    (tmp_path / "a.txt").write_text("Die Katze")
    with pytest.raises(UserError, match=r"a\.txt holds 1 documents: a sample needs two or more"):
        draw_text([str(tmp_path / "a.txt")], "text", 0)
