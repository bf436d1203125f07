import re

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from clp_jax.vocabulary import Token, read_vocabulary
from clp_jax.vocabulary.alphabets import WordPieceAlphabet

from ..marks import slow


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_canonical_bytes_are_what_the_tokenizer_itself_decodes(kind):
    """Every token, behind a word that it can only follow."""
    tokenizer, vocabulary = kind
    library = tokenizer.backend_tokenizer
    word = encode(tokenizer, "Haus")
    before = library.decode(word)
    wrong, alone, checked = [], [], 0
    for id, token in vocabulary.tokens.items():
        if token.roles:
            continue
        decoded = library.decode([*word, id], skip_special_tokens=False)
        assert decoded.startswith(before)
        expected = decoded[len(before) :]
        found = token.bytes.decode(errors="replace")
        if isinstance(vocabulary.alphabet, WordPieceAlphabet) and expected == f" {found}":
            alone.append((id, found))  # the decoder puts a space before everything
        elif found != expected:
            wrong.append((id, found, expected))
        checked += bool(set(found) & set("äöüÄÖÜß"))
    assert not wrong
    assert checked > 10
    for id, text in alone:
        assert encode(tokenizer, f"a{text}")[-1] == id
    assert bool(alone) == isinstance(vocabulary.alphabet, WordPieceAlphabet)


def test_pieces_of_a_word_are_what_the_tokenizer_makes_of_it_in_a_text(kind, documents):
    tokenizer, vocabulary = kind
    words = sorted(set(re.findall(r"(?<= )[A-Za-zÄÖÜäöüß]+(?= )", " ".join(documents))))[::20]
    assert len(words) > 500
    before = encode(tokenizer, "Haus")
    for word in words:
        pieces = vocabulary.pieces(Token(word.encode(), starts_word=True))
        assert encode(tokenizer, f"Haus {word}") == [*before, *pieces]


def test_pieces_stand_for_the_same_bytes(kind, documents):
    """Of inner parts of words, of which no text tells how they are cut on their own."""
    _, vocabulary = kind
    text = documents[0][:400]
    for part in (text[i : i + 5] for i in range(0, 400, 5)):
        if part.isalpha():
            pieces = vocabulary.pieces(Token(part.encode()))
            assert pieces
            assert b"".join(vocabulary.tokens[id].bytes for id in pieces) == part.encode()


@pytest.mark.parametrize(
    "kind",
    [
        slow("gpt2"),
        slow("de_bpe50k_focus"),
        slow("de_unigram50k_focus"),
        "byte_fallback",
        "wordpiece",
    ],
    indirect=True,
)
def test_a_token_is_its_own_piece(kind):
    _, vocabulary = kind
    same = sum(
        vocabulary.pieces(token) == [id]
        for id, token in vocabulary.tokens.items()
        if not token.roles
    )
    assert same > 0.98 * len(vocabulary.tokens) - 256


def test_missing_pieces(byte_fallback, wordpiece, shared_data):
    fallback, pieced = read_vocabulary(byte_fallback), read_vocabulary(wordpiece)
    names = fallback.byte_ids
    assert fallback.pieces(Token(b"\xc3")) == [names["<0xC3>"]]
    assert fallback.pieces(Token(b"\x9f\xe2\x82\xac")) == [
        names[f"<0x{byte}>"] for byte in ("9F", "E2", "82", "AC")
    ]
    assert fallback.pieces(Token("a▁".encode())) == []
    assert pieced.pieces(Token(b"\xc3")) == []
    assert pieced.pieces(Token("😀".encode())) == []
    assert pieced.pieces(Token(b"\n")) == []
    bracket = wordpiece.get_vocab()["("]
    assert pieced.pieces(Token(b"(")) == pieced.pieces(Token(b"(", starts_word=True)) == [bracket]
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    assert read_vocabulary(plain).pieces(Token(b"b")) == []


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (b"haus", Token(b"haus")),
        (b" haus", Token(b"haus", starts_word=True)),
        (b" \xc3", Token(b"\xc3", starts_word=True)),
        (b"  haus", Token(b"  haus")),
        (b" \n", Token(b" \n")),
        (b" ", Token(b" ")),
        (b"", Token(b"")),
        (" \u3000".encode(), Token(" \u3000".encode())),
    ],
)
def test_the_start_of_a_word(data, token):
    assert Token.of(data) == token
    assert token.bytes == data


def test_added_tokens_are_their_text_and_special_ones_their_roles():
    tokenizer = Tokenizer(models.BPE({"Ġ": 0, "Ã": 1, "</s>": 2, "<s>": 3}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(" Öl"), AddedToken("Ġ", special=False)])
    tokenizer.add_special_tokens(["<|im_end|>", "<|x|>"])
    vocabulary = read_vocabulary(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", bos_token="<s>")
    )
    names = {name: id for id, name in vocabulary.names.items()}
    tokens = {name: vocabulary.tokens[id] for name, id in names.items()}
    assert tokens[" Öl"] == Token("Öl".encode(), starts_word=True)
    assert tokens["Ġ"] == Token("Ġ".encode())
    assert tokens["</s>"] == Token(b"</s>")
    assert tokens["<s>"].roles == ("bos",)
    assert tokens["<|im_end|>"].roles == ("eos", "turn end")
    assert tokens["<|im_end|>"].role == "eos"
    assert tokens["<|x|>"].roles == ("<|x|>",)
    assert vocabulary.added == {names[" Öl"], names["Ġ"]}
