import os
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer import token_vectors as module
from clp_jax.transfer.token_vectors import (
    read_token_vectors,
    token_vectors,
    train_token_vectors,
)
from clp_jax.transfer.word_vectors import WordVectors


def one_token_at_a_time(words, tokenizer, rows):
    """The definition in float64."""
    splits = [
        set(tokenizer.encode(word, add_special_tokens=False))
        | set(tokenizer.encode(" " + word, add_special_tokens=False))
        for word in words.words
    ]
    table = np.zeros((rows, words.vectors.shape[1]))
    for token in set().union(*splits):
        holding = [rank for rank, split in enumerate(splits) if token in split]
        weights = [1 / (rank + 1) for rank in holding]
        vectors = words.vectors[holding].astype(np.float64)
        table[token] = weights @ vectors / np.sum(weights)
    return table


def some_vectors(words):
    rows = np.random.default_rng(0).normal(size=(len(words), 6)).astype(np.float32)
    return WordVectors(words, rows)


@pytest.mark.parametrize("block", [3, 65_536])
def test_tokens_of_a_tiny_tokenizer(tiny_tokenizer, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK_WORDS", block)
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    words = some_vectors(["die", "Katze", "dem", "the", "tttt", "", "Dach.", "ü", "New York"])
    found = token_vectors(words, Tokenizer.of(tokenizer), 310)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_token_at_a_time(words, tokenizer, 310), atol=1e-6)
    assert not found[300:].any()


@pytest.mark.slow
def test_tokens_of_a_real_tokenizer(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "de_bpe50k_focus")
    report = (shared_data / "tokenizers" / "de_bpe50k_focus" / "README.md").read_text("utf-8")
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)[300:50_000:25]
    words = some_vectors([*dict.fromkeys(report.split()), *names, "Donaudampfschiff", "über"])
    found = token_vectors(words, Tokenizer.of(tokenizer), len(tokenizer))
    expected = one_token_at_a_time(words, tokenizer, len(tokenizer))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    zero = ~expected.any(axis=1)
    assert zero.any()
    assert not found[zero].any()


def test_a_token_without_a_row(tiny_tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer)
    highest = max(tokenizer.encode("Katze") + tokenizer.encode(" Katze"))
    with pytest.raises(UserError, match=f"ids up to {highest}, but there are only {highest} rows"):
        token_vectors(some_vectors(["Katze"]), Tokenizer.of(tokenizer), highest)


def test_vectors_of_ones_own(tmp_path):
    table = np.random.default_rng(0).normal(size=(7, 3))
    np.save(tmp_path / "a.npy", table)
    found = read_token_vectors(tmp_path / "a.npy", 7)
    np.testing.assert_array_equal(found, table.astype(np.float32))
    with pytest.raises(UserError, match=r"a\.npy has 7 rows, but the target vocabulary has 8 ids"):
        read_token_vectors(tmp_path / "a.npy", 8)
    (tmp_path / "empty.npy").touch()
    with pytest.raises(UserError, match=r"empty\.npy cannot be read"):
        read_token_vectors(tmp_path / "empty.npy", 7)


KINDS = 400
TOPIC = np.arange(KINDS) // 8
ENOUGH, RARE, ABSENT = range(2 * KINDS, 2 * KINDS + 3)
TOKENS = [f"Ġ{id * 2654435761 % 2**32:08x}" for id in range(ABSENT + 1)]


def documents():
    """One text of many lines: others, then stretches of 20 tokens of a topic; and two short texts.

    The others alone are more than gensim reads of a line.
    """
    rng = np.random.default_rng(0)
    others = rng.integers(KINDS, 2 * KINDS, 50_000)
    topics = np.repeat(rng.integers(0, TOPIC.max() + 1, 3000), 20)
    topical = 8 * topics + rng.integers(0, 8, len(topics))
    return [np.append(others, topical), [ENOUGH] * 10 + [RARE] * 9, []]


def save_trained(file):
    np.save(file, train_token_vectors(documents(), TOKENS, seed=3))


@pytest.fixture(scope="module")
def trained():
    return train_token_vectors(documents(), TOKENS, seed=3)


def test_tokens_of_one_topic_are_close(trained):
    unit = trained[:KINDS] / np.linalg.norm(trained[:KINDS], axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -1)
    assert (TOPIC[similar.argmax(axis=1)] == TOPIC).mean() > 0.95


def test_rare_and_absent_tokens_are_zeros(trained):
    assert trained.shape == (len(TOKENS), 100)
    assert trained[: ENOUGH + 1].any(axis=1).all()
    assert not trained[[RARE, ABSENT]].any()


@pytest.mark.slow
def test_training_gives_the_same_bytes_in_another_process(trained, tmp_path):
    code = (
        "import runpy, sys; "
        f"runpy.run_path({__file__!r})['save_trained']({str(tmp_path / 'a.npy')!r})"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert np.load(tmp_path / "a.npy").tobytes() == trained.tobytes()


def test_too_little_text():
    with pytest.raises(UserError, match="no token occurs 10 times"):
        train_token_vectors([[0, 1, 2] * 3], ["a", "b", "c"], seed=0)


def test_without_gensim(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(UserError, match=r"pip install clp-jax\[vectors\]"):
        train_token_vectors([[0] * 20], ["a"], seed=0)
