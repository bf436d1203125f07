import numpy as np

from clp_jax.data.deduplicate.records import among, buckets, hash_range, read_between, write_sorted

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
