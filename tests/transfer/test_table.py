import hashlib

import ml_dtypes
import numpy as np
import pytest

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.transfer.table import READ_ROWS, NewTable, quantiles, read_table

ROWS = 2 * READ_ROWS + 17


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32) + 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rows_in_any_order_and_more_than_once(table, dtype):
    stored = table.astype(dtype)
    ids = np.array([ROWS - 1, 3, 0, READ_ROWS, 3, READ_ROWS - 1, 2 * READ_ROWS])
    read = read_table(LazyTensor.of(stored), ids)
    assert read.rows.dtype == np.float32
    np.testing.assert_array_equal(read.rows, stored[ids].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_what_is_known_of_all_rows(table, dtype):
    stored = table.astype(dtype)
    read = read_table(LazyTensor.of(stored), np.array([5]))
    exact = stored.astype(np.float64)
    np.testing.assert_allclose(read.mean, exact.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(read.std, exact.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(read.norms, np.linalg.norm(exact, axis=1), rtol=1e-6)
    assert read.sha256 == hashlib.sha256(stored.tobytes()).hexdigest()


def test_no_row_is_asked_for(table):
    read = read_table(LazyTensor.of(table), np.arange(0))
    assert read.rows.shape == (0, 6)
    assert len(read.norms) == ROWS


def test_only_blocks_are_ever_read(table):
    largest = 0

    def load(rows):
        nonlocal largest
        largest = max(largest, len(table[rows]))
        return table[rows]

    read_table(LazyTensor(table.shape, table.dtype, load), np.arange(ROWS))
    assert largest == READ_ROWS


def test_counts_facts_and_norms_for_the_manifest(table):
    origins = {"copied": np.array([0, 2]), "combined": np.array([1]), "padding": np.arange(0)}
    facts = {"strength": 0.1, "condition": table[:, 0]}
    norms = np.linalg.norm(table, axis=1)
    found = NewTable(table[:3], origins, facts, None).to_dict(norms)
    assert found["rows"] == {"total": 3, "copied": 2, "combined": 1, "padding": 0}
    assert found["facts"]["strength"] == 0.1
    assert found["facts"]["condition"]["0.5"] == pytest.approx(np.median(table[:, 0]))
    assert found["norm_quantiles"]["source"] == quantiles(norms)
    assert found["norm_quantiles"]["copied"]["1.0"] == pytest.approx(max(norms[0], norms[2]))
    assert found["norm_quantiles"]["padding"] == {}


def test_ids_by_origin_have_one_name_for_all_fallbacks():
    origins = {
        "copied": np.array([4, 0]),
        "fallback: mean": np.array([6]),
        "fallback: top-k softmax": np.array([5, 1]),
        "padding": np.array([], int),
    }
    table = NewTable(np.ones((7, 2), np.float32), origins, {}, None)
    ids = {name: found.tolist() for name, found in table.ids_by_origin().items()}
    assert ids == {"copied": [0, 4], "fallback": [1, 5, 6], "padding": []}
