"""tiktoken's ids, against those of the `tokenizers` library."""

import json
import random

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from clp_jax.data.io.readers import read_documents
from clp_jax.tokenizer import fast, owner, read_tokenizer
from clp_jax.tokenizer.expressions import Pieces, read_pieces
from clp_jax.tokenizer.fast import fast_encoder
from clp_jax.tokenizer.letters import LETTERS
from clp_jax.tokenizer.long import LONG

SAMPLE = """Im Jahr 1989 kamen über 100.000 Menschen … und „gingen“ wieder, don't they? DON'T!
def f(x):\r\n\t return [x ** 2 for _ in range(12)]  # 3²\n\n\n   😀 ï u\u0308b\u00a0x
東京は日本の首都です。 मैं हिन्दी में लिखता हूँ। שָׁלוֹם العَرَبِيَّة \x00\x07\x1b[0m ﬁn ½ Ⅷ \ufeff\u2028"""
"""German, English, code, emoji, combining marks, other scripts and control characters."""

SINGLE = {letter: byte for byte, letter in enumerate(LETTERS)}


def trained(splitter, special=("</s>",)):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SAMPLE.splitlines(True), *SAMPLE.split(" "), SAMPLE], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def bpe(merges, *, also=(), **options):
    """A byte-level BPE of just these merges."""
    made = dict.fromkeys(left + right for left, right in merges)
    vocabulary = {name: id for id, name in enumerate([*made, *also, *LETTERS])}  # last: not by rank
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, **options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def some_texts(count, seed=0, length=30):
    rng = random.Random(seed)
    ranges = [(0, 0x80), (0x20, 0x180), (0x300, 0x370), (0, 0xD800), (0xE000, 0x20000)]
    for _ in range(count):
        pieces = []
        for _ in range(rng.randrange(length)):
            first, end = rng.choice(ranges)
            pieces.append("".join(chr(rng.randrange(first, end)) for _ in range(rng.randrange(6))))
            start = rng.randrange(len(SAMPLE))
            pieces.append(SAMPLE[start : start + rng.randrange(20)])
            pieces.append(rng.choice("   \n\n\t'19.") * rng.randrange(4))
        yield "".join(pieces)


def assert_alike(backend, texts, *, special=False, left=0):
    """The same ids, and so many texts left to the library."""
    encoder = fast_encoder(backend)
    found = encoder.encode_batch(texts, special=special)
    backend.encode_special_tokens = not special
    theirs = backend.encode_batch(texts, add_special_tokens=False)
    for text, ours, encoding in zip(texts, found, theirs, strict=True):
        assert ours is None or ours.tolist() == encoding.ids, ascii(text)[:200]
    assert sum(ids is None for ids in found) == left


def test_the_ids_of_any_text_are_the_same(splitter):
    assert_alike(trained(splitter), ["", SAMPLE, *SAMPLE, *some_texts(300)])


@pytest.mark.parametrize("name", ["gpt2", "de_bpe50k_focus"])
def test_the_ids_of_real_text_by_real_tokenizers_are_the_same(shared_data, name):
    backend = Tokenizer.from_file(str(shared_data / "tokenizers" / name / "tokenizer.json"))
    inputs = ["corpora/de/heldout.jsonl.zst", "corpora/en/heldout.jsonl.zst"]
    texts = [*read_documents([str(shared_data / file) for file in inputs])][::8]
    tweets = [*read_documents([str(shared_data / "tasks" / "germeval2018" / "test.jsonl")])][::8]
    assert_alike(backend, [*texts, *tweets, *some_texts(300)])


@pytest.mark.parametrize("character", ["a", " ", "^", "\n", "ä", "1", "'", "\u0301"])
def test_a_long_run_of_one_character_has_the_same_ids(splitter, character):
    assert_alike(trained(splitter), [character * LONG])


def test_endless_white_space_is_left_to_the_library():
    encoder = fast_encoder(trained(pre_tokenizers.ByteLevel(add_prefix_space=False)))
    assert encoder.encode_batch([" " * (1 << 20)], special=False) == [None]


def test_half_of_a_surrogate_pair_is_left_to_the_library(splitter):
    encoder = fast_encoder(trained(splitter))
    assert encoder.encode_batch(["a\ud800"], special=False) == [None]


@pytest.mark.parametrize("normaliser", [None, normalizers.NFC()])
def test_long_texts_are_cut_where_it_does_not_matter(splitter, normaliser, monkeypatch):
    monkeypatch.setattr(fast, "_PART", 50)
    backend = trained(splitter)
    if normaliser:
        backend.normalizer = normaliser
    joined = [" a b".join(some_texts(20, seed, length=3)) for seed in range(20)]
    assert_alike(backend, [*joined, "a b " * 200, "a" * 101], left=1)


def test_text_is_normalised_first():
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.normalizer = normalizers.NFC()
    assert_alike(backend, [SAMPLE, "u\u0308", "\u1100\u1161", "\u0958", *some_texts(300)])


def test_no_time_is_spent_on_special_tokens():
    """Without one, tiktoken searches before each byte; the one it has is text like any other."""
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    [special] = fast_encoder(backend).encoding.special_tokens_set
    assert_alike(backend, [special, f"a{special}{special}ü", special[:-1], SAMPLE])


def test_texts_that_spell_added_tokens_are_left_to_the_library():
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), ("</s>", "<s>"))
    backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken("gro\u0308ßer"), "  "])
    texts = ["a</s>b", "</s", "wird größer", "gro\u0308ßer", "a  b", "Fluss"]
    assert backend.encode("größer").ids == [backend.token_to_id("gro\u0308ßer")]
    assert_alike(backend, texts, left=3)
    assert_alike(backend, texts, special=True, left=4)


def test_tokens_that_no_merge_reaches_are_not_reached():
    merges = [("a", "b"), ("b", "c"), ("a", "bc"), ("d", "e")]
    backend = bpe(merges, also=["def", "abd", "</s>"])
    texts = ["abc", "bc", "xabcbc", "def", "abde", "ab</s>", "abcdefabdbcaabbc"]
    assert_alike(backend, texts)
    assert backend.encode("def").tokens == ["de", "f"]


def all_merges(tokens):
    """As a vocabulary of tiktoken's is converted: every pair that spells a token, by its rank."""
    known = {*LETTERS, *tokens}
    for token in tokens:
        for cut in range(1, len(token)):
            if {token[:cut], token[cut:]} <= known:
                yield token[:cut], token[cut:]


TOKENS = ["ab", "cd", "bc", "abc", "bcd", "aa", "aaa", "aaaa", "abcabc", "xyz"]


def test_pieces_that_are_tokens_are_looked_up_where_the_tokenizer_does():
    rng = random.Random(1)
    texts = [*TOKENS, "bcd", "abcd", "xyz", "xxyz"]
    texts += ["".join(rng.choices("abcdxyz ", k=12)) for _ in range(2000)]
    merges = [*all_merges(TOKENS)]
    backend = bpe(merges, also=["xyz"], ignore_merges=True)
    assert backend.encode("xyz").tokens == ["xyz"]
    assert backend.encode("xxyz").tokens == [*"xxyz"]
    assert_alike(backend, texts)
    assert_alike(bpe(merges, also=["xyz"]), texts)


def test_where_the_ids_are_not_certain_there_is_no_encoder(monkeypatch):
    known = pre_tokenizers.ByteLevel(add_prefix_space=False)
    merges = [("a", "b"), ("c", "d"), ("ab", "cd")]
    assert fast_encoder(bpe(merges))
    apart = [("b", "c"), ("a", "bc"), ("a", "b"), ("ab", "c")]  # abc
    assert not fast_encoder(bpe(apart))
    assert not fast_encoder(bpe(merges, dropout=0.1))
    assert not fast_encoder(bpe(merges, also=["abc"], ignore_merges=True))  # is never ab and c
    assert not fast_encoder(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])))
    lower = bpe(merges)
    lower.normalizer = normalizers.Lowercase()
    assert not fast_encoder(lower)
    spaced = bpe(merges)
    spaced.add_tokens(["two words"])
    assert not fast_encoder(spaced)
    partial = Tokenizer(models.BPE({letter: id for letter, id in SINGLE.items() if id}, []))
    partial.pre_tokenizer = known
    assert not fast_encoder(partial)
    word = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}))
    word.pre_tokenizer = known
    assert not fast_encoder(word)


@pytest.mark.parametrize(
    ("known", "changed"),
    [
        (r"|'ll", ""),
        (r" ?\p{N}+", r" ?\p{Nd}+"),
        (r" ?\p{L}+", r" ?[\p{L}--\x{105C0}]+"),  # a letter since Unicode 16
        (r"\s+(?!\S)|", ""),
    ],
)
def test_different_splits_are_detected(known, changed, monkeypatch):
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    assert fast_encoder(backend)
    expression = read_pieces(json.loads(backend.to_str())["pre_tokenizer"]).expression
    assert known in expression
    other = Pieces(expression.replace(known, changed))
    monkeypatch.setattr(fast, "read_pieces", lambda _: other)
    assert not fast_encoder(backend)


def test_much_text_has_the_ids_of_the_file(folder, monkeypatch):
    monkeypatch.setattr(owner, "_MUCH", 0)
    tokenizer = read_tokenizer(folder, "it")
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [SAMPLE, "", *some_texts(50)]
    for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
        assert ids.dtype == np.uint16
        reference.encode_special_tokens = True
        assert ids.tolist() == reference.encode(text, add_special_tokens=False).ids


def test_much_text_goes_to_tiktoken_and_what_is_not_for_it_to_the_library(monkeypatch):
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer = owner.Tokenizer.from_backend("it", backend, {"eos": "</s>"})
    monkeypatch.setattr(owner, "_MUCH", 1000)
    monkeypatch.setattr(fast, "_PART", 1000)
    texts = ["a b" * 1000, "Fluss</s>", "a" * 3000, SAMPLE]
    reference = Tokenizer.from_str(tokenizer.description)
    for special in (False, True):
        reference.encode_special_tokens = not special
        for ids, text in zip(tokenizer.encode_batch(texts, special=special), texts, strict=True):
            assert ids.tolist() == reference.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(owner.FastEncoder, "encode_batch", lambda *_, **__: [np.array([7])])
    assert tokenizer.encode_batch([texts[0]])[0].tolist() == [7]
    assert tokenizer.encode_batch(["few"])[0].tolist() != [7]
