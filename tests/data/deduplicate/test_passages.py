import random

import numpy as np
import pytest

from clp_jax.data.deduplicate import passages
from clp_jax.data.deduplicate.passages import hash_passages, winnow


@pytest.fixture(params=[16, 1 << 16], ids=["small blocks", "one block"])
def block(request, monkeypatch) -> None:
    monkeypatch.setattr(passages, "_BLOCK", request.param)


def some_bytes(size: int, letters: int) -> bytes:
    return bytes(random.Random(size).choices(range(letters), k=size))


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("length", [1, 7, 40])
def test_passages_have_the_same_hash_if_they_are_equal(length):
    data = some_bytes(2000, 2)
    hashes = hash_passages(array(data), length).tolist()
    pairs = {(data[i : i + length], hashes[i]) for i in range(len(data) - length + 1)}
    texts, values = (set(side) for side in zip(*pairs, strict=True))
    assert len(hashes) == len(data) - length + 1
    assert len(pairs) == len(texts) == len(values)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("data", [some_bytes(3000, 4), b"abc" * 500, b"x" * 999, b"kurz", b""])
def test_a_fingerprint_is_the_rightmost_smallest_of_a_window(data):
    length, gram = 30, 10
    width = length - gram + 1
    every = hash_passages(array(data), gram).tolist() if len(data) >= gram else []
    chosen = {}
    for hashes, starts, counts in winnow(array(data), length, gram):
        for value, start, count in zip(hashes.tolist(), starts, counts, strict=True):
            for passage in range(start, start + count):
                assert passage not in chosen
                chosen[passage] = value
    assert sorted(chosen) == list(range(len(data) - length + 1))
    smallest = {start: min(every[start : start + width]) for start in chosen}
    assert len(set(zip(smallest.values(), (chosen[start] for start in smallest), strict=True))) == (
        len(set(smallest.values()))
    )


def test_equal_passages_under_one_fingerprint_give_it_twice():
    data = b"ab" * 100
    prints = [value for hashes, *_ in winnow(array(data), 30, 10) for value in hashes.tolist()]
    assert max(prints.count(value) for value in prints) > 1
    assert len(prints) < 50


def test_about_two_fingerprints_for_a_window():
    data = some_bytes(100_000, 256)
    prints = sum(len(hashes) for hashes, *_ in winnow(array(data), 149, 50))
    assert prints == pytest.approx(2 * len(data) / 101, rel=0.05)
