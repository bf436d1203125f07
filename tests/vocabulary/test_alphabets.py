import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from clp_jax.errors import UserError
from clp_jax.tokenizer.letters import LETTERS
from clp_jax.vocabulary.alphabets import (
    ByteLevelAlphabet,
    PlainAlphabet,
    SentencePieceAlphabet,
    WordPieceAlphabet,
    read_alphabet,
)


def alphabet(model, *, decoder=None, pre_tokenizer=None):
    tokenizer = Tokenizer(model)
    if decoder:
        tokenizer.decoder = decoder
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    return read_alphabet(tokenizer, json.loads(tokenizer.to_str()), "tiny")


def test_the_characters_of_bytes_are_the_librarys():
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, range(0x800))) + "€𝄞"
    [(written, _)] = splitter.pre_tokenize_str(text)
    assert ByteLevelAlphabet().write(text.encode()) == [written]
    assert set(LETTERS) == set(pre_tokenizers.ByteLevel.alphabet())
    every = bytes(range(256))
    [name] = ByteLevelAlphabet().write(every)
    assert ByteLevelAlphabet().read(name) == every
    assert ByteLevelAlphabet().read("Ġ ü") == "Ġ ü".encode()


def test_sentencepiece():
    mark = SentencePieceAlphabet("▁", byte_names=True)
    assert mark.read("▁a▁b") == b" a b"
    assert mark.read("<0xE4>") == b"\xe4"
    assert mark.read("<0xE4>x") == b"<0xE4>x"
    assert mark.write(" ü".encode() + b"\xff") == ["▁ü", "<0xFF>"]
    assert SentencePieceAlphabet("▁", byte_names=False).read("<0xE4>") == b"<0xE4>"


BPE, WORDS = models.BPE(), models.WordLevel({"a": 0})
REPLACE = decoders.Replace("▁", " ")


@pytest.mark.parametrize(
    ("model", "steps", "expected"),
    [
        (BPE, {"decoder": decoders.ByteLevel()}, ByteLevelAlphabet()),
        (BPE, {"pre_tokenizer": pre_tokenizers.ByteLevel()}, ByteLevelAlphabet()),
        (
            BPE,
            {"pre_tokenizer": pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])},
            ByteLevelAlphabet(),
        ),
        (BPE, {"decoder": decoders.Metaspace("_")}, SentencePieceAlphabet("_", False)),
        (BPE, {"pre_tokenizer": pre_tokenizers.Metaspace()}, SentencePieceAlphabet("▁", False)),
        (BPE, {"decoder": REPLACE}, SentencePieceAlphabet("▁", False)),
        (
            BPE,
            {"decoder": decoders.Sequence([REPLACE, decoders.Replace("``", '"')])},
            SentencePieceAlphabet("▁", False),
        ),
        (
            BPE,
            {"decoder": decoders.Sequence(
                [decoders.Sequence([REPLACE, decoders.ByteFallback()]), decoders.Fuse()])},
            SentencePieceAlphabet("▁", True),
        ),
        (
            models.BPE(byte_fallback=True), {"decoder": decoders.Metaspace()},
            SentencePieceAlphabet("▁", True),
        ),
        (BPE, {}, PlainAlphabet()),
        (WORDS, {"decoder": decoders.Fuse()}, PlainAlphabet()),
        (models.BPE(continuing_subword_prefix="", end_of_word_suffix=""), {}, PlainAlphabet()),
    ],
)  # fmt: skip
def test_the_kind_is_read_from_the_decoder_or_what_comes_before(model, steps, expected):
    found = alphabet(model, **steps)
    assert type(found) is type(expected)
    assert vars(found) == vars(expected)


def test_wordpiece_is_known_by_its_prefix():
    for found in (
        alphabet(models.WordPiece(), pre_tokenizer=pre_tokenizers.Whitespace()),
        alphabet(models.WordPiece(), decoder=decoders.WordPiece()),
    ):
        assert isinstance(found, WordPieceAlphabet)
        assert found.read("##haus") == b"haus"
        assert found.read("haus") == b" haus"
    found = alphabet(models.WordPiece(), pre_tokenizer=pre_tokenizers.Whitespace())
    assert found.read(",") == b","
    assert found.write(b",") == found.write(b" ,") == [","]
    assert found.write(b"haus") == ["##haus"]


def test_marks_of_the_end_of_a_word_are_refused():
    with pytest.raises(UserError, match=r"tiny: .* end_of_word_suffix is not supported"):
        alphabet(models.BPE(end_of_word_suffix="</w>"))
