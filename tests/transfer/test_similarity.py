import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.transfer.methods.similarity import (
    as_queries,
    clp_sparse,
    clp_topk,
    sparsemax,
    spell,
    subword,
)
from clp_jax.vocabulary import read_vocabulary

NEIGHBOURS = 10
METHODS = pytest.mark.parametrize("method", [clp_topk, clp_sparse])


def rows_of(oracle, method):
    return getattr(oracle, method.__name__)


@METHODS
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_equals_the_oracle(mesh, problem, oracle, row_error, method, center):
    asked = problem(mesh=mesh, center=center)
    found = method(asked)
    assert found.rows.dtype == np.float32
    assert row_error(found.rows, rows_of(oracle, method)(asked)).max() < 1e-5
    assert not found.fallback["mean"].any()


@METHODS
def test_fewer_anchors_than_neighbours(problem, oracle, row_error, method):
    asked = problem(anchors=NEIGHBOURS - 6)
    assert row_error(method(asked).rows, rows_of(oracle, method)(asked)).max() < 1e-5


@METHODS
def test_queries_of_zeros_get_the_mean_row(problem, method):
    asked = problem()
    asked.queries[[0, 7]] = 0
    found = method(asked)
    np.testing.assert_array_equal(np.flatnonzero(found.fallback["mean"]), [0, 7])
    np.testing.assert_array_equal(found.rows[[0, 7]], [asked.mean] * 2)
    assert np.isfinite(found.rows).all()


@METHODS
def test_contributors_give_the_rows_back(problem, method):
    asked = problem()
    found = method(asked)
    ids, weights = found.contributors(len(asked.anchors))
    assert (np.diff(weights, axis=1) <= 0).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    rows = np.einsum("qk,qkd->qd", weights.astype(np.float64), asked.rows[ids])
    np.testing.assert_allclose(rows, found.rows, atol=1e-5)


@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_sparsemax_of_close_and_of_far_cosines(oracle, spread):
    """With nearly equal cosines all anchors share the weight, with different ones few do."""
    rng = np.random.default_rng(0)
    queries = (rng.normal(size=(50, 12)) * spread + 1).astype(np.float32)
    anchors = (rng.normal(size=(90, 12)) * spread + 1).astype(np.float32)
    found = np.asarray(sparsemax(jnp.asarray(queries), jnp.asarray(anchors)))
    expected = [
        oracle.sparsemax_weights(oracle.cosines(q, anchors.astype(np.float64)))
        for q in queries.astype(np.float64)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    used = (found > 0).sum(axis=1)
    assert (used == 90).all() if spread < 1 else (used < 45).all()


def test_sparsemax_ends_with_an_anchor_right_at_its_threshold(oracle):
    cosines = np.random.default_rng(0).uniform(0.5, 1, size=(256, 400))
    weights = np.stack([oracle.sparsemax_weights(row) for row in cosines])
    best = np.arange(256), weights.argmax(axis=1)
    cosines[:, 7] = cosines[best] - weights[best]  # theta, to which rounding adds or not
    anchors = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=-1).astype(np.float32)
    query = jnp.array([[1.0, 0.0]])
    found = jax.jit(jax.vmap(lambda known: sparsemax(query, known)))(anchors)[:, 0]
    expected = np.stack([oracle.sparsemax_weights(row) for row in cosines])
    np.testing.assert_allclose(found, expected, atol=1e-5)


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


@pytest.mark.slow
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
