import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer import external_vectors as module
from clp_jax.transfer import external_vectors as word_vectors
from clp_jax.transfer.external_vectors import (
    WordVectors,
    align,
    read_dictionary,
    read_token_vectors,
    read_word_vectors,
    token_vectors,
    train_token_vectors,
)

WORDS = ["der", "Straße", ". . .", "\u2028", "\xa0", "New York", "0", "1.5"]


@pytest.fixture
def vectors(rng):
    return WordVectors(WORDS, rng.normal(size=(len(WORDS), 5)).astype(np.float32))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def text(vectors, end="\n"):
    rows = zip(vectors.words, vectors.vectors, strict=True)
    return "".join(f"{word} {' '.join(map(str, row))}{end}" for word, row in rows)


def some(count, dim, rng, prefix="w"):
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    return WordVectors([f"{prefix}{i}" for i in range(count)], rows)


@pytest.mark.parametrize("name", ["a.vec", "a.txt", "a.vec.gz"])
@pytest.mark.parametrize("header", ["", "8 5\n"], ids=["bare", "header"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"], ids=["lf", "space", "crlf"])
def test_text_is_read_back(vectors, tmp_path, name, header, end):
    data = (header + text(vectors, end)).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = read_word_vectors(tmp_path / name)
    assert found.words == vectors.words
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, vectors.vectors)


def test_gensim_writes_what_is_read(vectors, tmp_path):
    from gensim.models import KeyedVectors

    theirs = KeyedVectors(5)
    theirs.add_vectors(vectors.words, vectors.vectors)
    theirs.save_word2vec_format(tmp_path / "a.vec")
    found = read_word_vectors(tmp_path / "a.vec")
    assert found.words == vectors.words
    np.testing.assert_array_equal(found.vectors, vectors.vectors)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_array_with_its_words_in_another_file(vectors, tmp_path, dtype):
    np.save(tmp_path / "a.npy", vectors.vectors.astype(dtype))
    (tmp_path / "a.txt").write_text("\n".join(vectors.words) + "\n", "utf-8")
    found = read_word_vectors(str(tmp_path / "a.npy"))
    assert found.words == vectors.words
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, vectors.vectors.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.vec contains no word vectors"),
        (b"2 2\na 1 2\n", "line 1: announces 2 words, but 1 follow"),
        (b"1 2\na 1 2\nb 1 2\n", "line 1: announces 1 words, but 2 follow"),
        (b"a 1 2\nb 1\n", "line 2: expected a word and 2 finite numbers"),
        (b"a 1 2\n\nb 1 x\n", "line 3: expected a word and 2 finite numbers"),
        (b"a 1 nan\n", "line 1: expected a word and 2 finite numbers"),
        (b"a 1 inf\n", "line 1: expected a word and 2 finite numbers"),
        (b"word\n", "line 1: expected a word and its finite numbers"),
        (b"a 1 2\n\xff 1 2\n", "line 2: not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, data, message):
    (tmp_path / "a.vec").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_word_vectors(tmp_path / "a.vec")


def test_files_that_cannot_be_read(vectors, tmp_path):
    with pytest.raises(UserError, match=r"none\.vec is missing"):
        read_word_vectors(tmp_path / "none.vec")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(text(vectors).encode())[:-20])
    with pytest.raises(UserError, match=r"cut\.gz cannot be read"):
        read_word_vectors(tmp_path / "cut.gz")
    (tmp_path / "plain.gz").write_bytes(text(vectors).encode())
    with pytest.raises(UserError, match=r"plain\.gz cannot be read"):
        read_word_vectors(tmp_path / "plain.gz")


def test_arrays_that_do_not_fit(vectors, tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, vectors.vectors)
    with pytest.raises(UserError, match=r"a\.txt is missing"):
        read_word_vectors(file)
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"a\.txt has 2 words for the 8 rows of a\.npy"):
        read_word_vectors(file)
    none = (vectors.vectors[:, :0], vectors.vectors[:0])
    for wrong in (vectors.vectors[0], np.zeros((2, 2), int), np.array([["a"]], object), *none):
        np.save(file, wrong)
        with pytest.raises(UserError, match=r"a\.npy (is not an array|cannot be read)"):
            read_word_vectors(file)
    np.save(file, np.array([[1.0, 2.0], [1.0, np.nan]]))
    with pytest.raises(UserError, match=r"a\.npy, row 1 \(from 0\): a value is not finite"):
        read_word_vectors(file)


@pytest.mark.parametrize("name", ["a.vec", "a.vec.gz", "a.npy"])
def test_vectors_in_a_pipe_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        read_word_vectors(tmp_path / name)


def test_a_line_without_end_is_refused(tmp_path):
    (tmp_path / "a.vec.gz").write_bytes(gzip.compress(bytes(5 << 20)))
    with pytest.raises(UserError, match=r"a\.vec\.gz, line 1 is longer than 1 MiB"):
        read_word_vectors(tmp_path / "a.vec.gz")


def test_a_dictionary_is_read(tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("\ufeffhouse\tHaus\nthe der\n\nNew York\tNeu York\ncat  Katze \n", "utf-8")
    assert read_dictionary(file) == [
        ("house", "Haus"), ("the", "der"), ("New York", "Neu York"), ("cat", "Katze"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "pairs.txt contains no word pairs"),
        ("a b\na\n", "line 2: expected a source word and a target word, .* found 1 words"),
        ("a b c\n", "line 1: expected a source word and a target word, .* found 3 words"),
        ("a\tb\tc\n", "line 1: expected a source word and a target word, .* found 3 words"),
    ],
)
def test_a_wrong_pair_is_named(tmp_path, data, message):
    (tmp_path / "pairs.txt").write_text(data)
    with pytest.raises(UserError, match=message):
        read_dictionary(tmp_path / "pairs.txt")


def test_a_rotation_is_recovered(rng):
    target = some(200, 12, rng, "t")
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    rotated = (target.vectors @ rotation).astype(np.float32)
    source = WordVectors([f"s{i}" for i in range(200)], rotated)
    found, same = align(source, target, [(f"s{i}", f"t{i}") for i in range(40)])
    assert same is target
    assert found.words == source.words
    np.testing.assert_allclose(found.vectors, target.vectors, atol=1e-5)


def procrustes(a, b):
    """The orthogonal matrix of SciPy, which nobody here wrote."""
    from scipy.linalg import orthogonal_procrustes

    return orthogonal_procrustes(a.astype(np.float64), b.astype(np.float64))[0]


def test_pairs_in_every_case_and_the_first_of_equal_words(rng):
    source = WordVectors(["House", "house", "CAT", "cat", "x", "house"], some(6, 4, rng).vectors)
    target = WordVectors(["haus", "Haus", "katze", "y"], some(4, 4, rng).vectors)
    dictionary = [("house", "Haus"), ("CAT", "katze"), ("x", "absent"), ("dog", "y")]
    found, _ = align(source, target, iter(dictionary))
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 2)]
    a = np.array([source.vectors[i] for i, _ in pairs])
    b = np.array([target.vectors[i] for _, i in pairs])
    np.testing.assert_allclose(found.vectors, source.vectors @ procrustes(a, b), atol=1e-6)


@pytest.mark.parametrize("wider", ["source", "target"])
def test_the_wider_side_is_reduced(rng, wider):
    scale = 2.0 ** -np.arange(9)
    wide, narrow = some(300, 9, rng, "a"), some(300, 4, rng, "b")
    wide = WordVectors(wide.words, (wide.vectors * scale + 1).astype(np.float32))
    dictionary = [(f"a{i}", f"b{i}") for i in range(50)]

    exact = wide.vectors.astype(np.float64)
    _, _, axes = np.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)
    reduced = exact @ axes[:4].T
    if wider == "source":
        source, target = align(wide, narrow, dictionary)
        rotation = procrustes(reduced[:50], narrow.vectors[:50])
        np.testing.assert_allclose(source.vectors, reduced @ rotation, atol=1e-5)
        assert target is narrow
    else:
        source, target = align(narrow, wide, [(b, a) for a, b in dictionary])
        # Order and signs of the axes are free.
        gram = target.vectors @ target.vectors.T
        np.testing.assert_allclose(gram, reduced @ reduced.T, rtol=1e-5, atol=1e-4)
        rotation = procrustes(narrow.vectors[:50], reduced[:50])
        expected = narrow.vectors @ rotation @ reduced.T
        np.testing.assert_allclose(source.vectors @ target.vectors.T, expected, atol=1e-4)
    assert source.vectors.dtype == target.vectors.dtype == np.float32


def test_one_word_has_no_principal_axes(rng):
    wide, narrow = some(1, 6, rng, "a"), some(5, 3, rng, "b")
    with pytest.raises(UserError, match="differ in width, and the wider ones have only one word"):
        align(wide, narrow, [("a0", "b0")])


def test_principal_axes_are_those_of_the_frequent_words(rng, monkeypatch):
    wide, narrow = some(60, 6, rng, "a"), some(60, 3, rng, "b")
    dictionary = [(f"a{i}", f"b{i}") for i in range(30)]
    monkeypatch.setattr(word_vectors, "PCA_WORDS", 40)
    found, _ = align(wide, narrow, dictionary)
    rarer = np.concatenate([wide.vectors[:40], 100 * wide.vectors[40:]])
    same, _ = align(WordVectors(wide.words, rarer), narrow, dictionary)
    np.testing.assert_array_equal(found.vectors[:40], same.vectors[:40])


def test_no_pair_in_both_files(rng):
    source, target = some(5, 3, rng, "s"), some(5, 3, rng, "t")
    with pytest.raises(UserError, match="source word first and the target word second"):
        align(source, target, [("t1", "s1")])


def test_words_without_vectors():
    with pytest.raises(ValueError, match="1 words for 2 vectors"):
        WordVectors(["a"], np.zeros((2, 3), np.float32))


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


def test_vectors_of_the_user(tmp_path):
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
