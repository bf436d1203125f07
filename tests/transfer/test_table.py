import hashlib
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.transfer.table import READ_ROWS, NewTable, extending, quantiles, read_table, replacing
from clp_jax.vocabulary import match_vocabularies, read_vocabulary


@pytest.fixture
def tokenizers(source, helper):
    return [AutoTokenizer.from_pretrained(folder) for folder in (source, helper)]


@pytest.fixture
def vocabulary(tokenizers):
    return match_vocabularies(*map(read_vocabulary, tokenizers))


@pytest.fixture
def extended(vocabulary):
    """All missing tokens behind the source's sixteen, after a gap of one."""
    return extending(vocabulary, 17 + np.arange(len(vocabulary.missing_ids)),
                     vocabulary.missing_ids, multiple=8)  # fmt: skip


@pytest.mark.parametrize(("multiple", "rows"), [(1, 21), (8, 24), (21, 21)])
def test_every_row_has_one_place(vocabulary, multiple, rows):
    layout = replacing(vocabulary, multiple=multiple)
    places = np.concatenate([layout.copied, layout.missing, layout.padding])
    assert sorted(places) == list(range(rows)) == list(range(layout.rows))
    assert layout.padding.tolist() == [5, *range(21, rows)]
    assert not layout.keeps


def test_anchors_are_the_strings_in_both_and_roles_come_last(tokenizers, vocabulary):
    layout = replacing(vocabulary)
    old, new = tokenizers
    here, there = layout.copied_source[: layout.anchors], layout.copied[: layout.anchors]
    names = old.convert_ids_to_tokens(here.tolist())
    assert names == new.convert_ids_to_tokens(there.tolist())
    ordinary = [tokens.get_vocab().keys() - set(tokens.all_special_tokens) for tokens in tokenizers]
    assert set(names) == set.intersection(*ordinary)
    np.testing.assert_array_equal(layout.anchor_helper, there)
    np.testing.assert_array_equal(layout.copied[layout.anchors :], layout.roles)
    roles = dict(zip(layout.roles.tolist(), layout.copied_source[layout.anchors :], strict=True))
    assert roles[new.bos_token_id] == old.bos_token_id
    assert roles[new.eos_token_id] == old.eos_token_id


def test_an_extension_leaves_the_source_where_it_is(tokenizers, vocabulary, extended):
    np.testing.assert_array_equal(extended.copied, extended.copied_source)
    assert sorted(extended.copied) == list(range(16))
    places = np.concatenate([extended.copied, extended.missing, extended.padding])
    assert sorted(places) == list(range(24)) == list(range(extended.rows))
    assert extended.missing.tolist() == [17 + i for i in range(len(vocabulary.missing_ids))]
    assert extended.padding[0] == 16
    old, new = tokenizers
    assert extended.anchors == vocabulary.anchors.sum()
    assert old.convert_ids_to_tokens(
        extended.copied[: extended.anchors].tolist()
    ) == new.convert_ids_to_tokens(extended.anchor_helper.tolist())
    assert len(extended.roles) == 0
    assert extended.keeps


def test_two_tokens_of_one_source_token_are_one_row_of_an_extension(vocabulary):
    twice = vocabulary.source_ids.copy()
    first, second = np.flatnonzero(vocabulary.anchors)[:2]
    twice[second] = twice[first]
    layout = extending(
        replace(vocabulary, source_ids=twice), 16 + np.arange(2), vocabulary.missing_ids[:2]
    )
    assert sorted(layout.copied) == list(range(16))
    assert layout.anchors == vocabulary.anchors.sum() - 1
    assert vocabulary.target_ids[second] not in layout.anchor_helper


def test_nearly_equal_tokens_are_copied_and_are_no_anchors(vocabulary):
    kinds = vocabulary.kinds.copy()
    fuzzy = np.flatnonzero(vocabulary.anchors)[:2]
    kinds[fuzzy] = "fuzzy"
    layout = replacing(replace(vocabulary, kinds=kinds))
    copied, roles = vocabulary.target_ids[fuzzy], vocabulary.target_ids[kinds == "role"]
    assert layout.anchors == vocabulary.anchors.sum() - 2
    assert not np.isin(copied, layout.anchor_helper).any()
    assert np.isin(copied, layout.copied).all()
    np.testing.assert_array_equal(layout.roles, roles)


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
