import random

import numpy as np
import pytest

from clp_jax.data.dedup import fingerprints
from clp_jax.data.dedup.fingerprints import (
    among,
    buckets,
    hash_passages,
    hash_range,
    read_between,
    winnow,
    write_sorted,
)


@pytest.fixture(params=[16, 1 << 16], ids=["small blocks", "one block"])
def block(request, monkeypatch) -> None:
    monkeypatch.setattr(fingerprints, "_BLOCK", request.param)


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


RECORD = np.dtype([("hash", "<u8"), ("task", "<u4")])


def test_the_ranges_of_all_buckets_hold_every_record_once(tmp_path):
    rng = np.random.default_rng(0)
    written = []
    for rank, size in enumerate([1000, 0, 1, 500]):
        records = np.empty(size, RECORD)
        records["hash"], records["task"] = rng.integers(1 << 64, size=size, dtype=np.uint64), rank
        records["hash"][:2] = [0, 2**64 - 1][:size]
        write_sorted(tmp_path, rank, records, "hash")
        written.append(records)
    parts = [read_between(tmp_path, 4, "hash", *hash_range(bucket, 7)) for bucket in range(7)]
    assert min(len(part) for part in parts) > 100
    for part in parts:
        assert (np.diff(part["task"].astype(int)) >= 0).all()
    read, written = np.sort(np.concatenate(parts)), np.sort(np.concatenate(written))
    np.testing.assert_array_equal(read, written)


def test_equal_keys_keep_their_order(tmp_path):
    records = np.array([(2, 0), (1, 1), (2, 2), (1, 3)], RECORD)
    write_sorted(tmp_path, 0, records, "hash")
    assert read_between(tmp_path, 1, "hash", 1, 3)["task"].tolist() == [1, 3, 0, 2]
    assert read_between(tmp_path, 1, "hash", 2, 3)["task"].tolist() == [0, 2]


def test_a_file_half_written_is_not_read(tmp_path):
    write_sorted(tmp_path, 0, np.zeros(1, RECORD), "hash")
    (tmp_path / ".00001.abc.partial.npy").write_bytes(b"")
    assert len(read_between(tmp_path, 1, "hash", 0, 1)) == 1


def test_there_are_more_buckets_for_more_tasks():
    assert buckets(1) == 1
    assert buckets(1024) > buckets(512) > 100


def test_among_is_what_numpy_says():
    rng = np.random.default_rng(1)
    values, others = (rng.integers(50, size=40, dtype=np.uint64) for _ in range(2))
    np.testing.assert_array_equal(among(values, np.sort(others)), np.isin(values, others))
    assert not among(values, np.empty(0, np.uint64)).any()
