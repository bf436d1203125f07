from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.transfer.layout import extending, replacing
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
