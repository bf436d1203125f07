import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.transfer.pieces import as_queries, spell, subword
from clp_jax.vocabulary import read_vocabulary

SPELLINGS = [[40, 7], [], [7], [9, 40, 9, 7]]
PIECES = np.array([7, 9, 40, 41, 50])


@pytest.fixture
def spelled(mesh, problem):
    return problem(anchors=5, features=4, mesh=mesh)._replace(queries=as_queries(SPELLINGS, PIECES))


def test_positions_of_the_pieces():
    expected = [[2, 0, -1, -1], [-1] * 4, [0, -1, -1, -1], [1, 2, 1, 0]]
    np.testing.assert_array_equal(as_queries(SPELLINGS, PIECES), expected)


def test_equals_the_oracle_and_knows_what_it_cannot_spell(spelled, oracle, row_error):
    found = subword(spelled)
    assert found.rows.dtype == np.float32
    np.testing.assert_array_equal(found.fallback["mean"], [False, True, False, False])
    np.testing.assert_array_equal(found.rows[1], spelled.mean)
    real = spelled._replace(queries=spelled.queries[[0, 2, 3]])
    assert row_error(found.rows[[0, 2, 3]], oracle.subword(real)).max() < 1e-6


def test_contributors_are_the_pieces(spelled):
    ids, weights = subword(spelled).contributors(4)
    for row, shares, spelling in zip(ids, weights, SPELLINGS, strict=True):
        assert sorted(PIECES[row[shares > 0]]) == sorted(spelling)
        np.testing.assert_allclose(shares[shares > 0], 1 / max(len(spelling), 1))


def test_a_token_is_spelled_as_the_source_cuts_it(shared_data):
    folders = [shared_data / "tokenizers" / name for name in ("gpt2", "de_bpe50k_focus")]
    source, target = map(AutoTokenizer.from_pretrained, folders)
    ids = np.arange(300, 50_000, 173)
    texts = [target.decode([id]) for id in ids.tolist()]
    whole = [i for i, text in enumerate(texts) if "\ufffd" not in text]
    found = spell(read_vocabulary(source), read_vocabulary(target), ids)
    # The model alone: as a word, where the pre-tokenizer cuts nothing off.
    words = [i for i in whole if texts[i].strip().isalpha()]
    assert len(words) > 200
    assert [found[i] for i in words] == [
        source.encode(texts[i], add_special_tokens=False) for i in words
    ]


def test_special_tokens_have_no_spelling(tiny_tokenizer):
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(tiny_tokenizer))
    assert spell(vocabulary, vocabulary, np.array([0, 5])) == [[], [5]]
