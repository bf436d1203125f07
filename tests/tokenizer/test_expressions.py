"""The pieces of a text, beside those of the `tokenizers` library."""

import itertools
import json
import random

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from clp_jax.tokenizer.expressions import Pieces, cuts_alike, read_pieces

KINDS = "as1²x\u0301\u200c' \t\n\r\u00a0\u2028\u001c,。_|(ſ\U000105c0"
"""Characters that some expression tells from others."""

ASSIGNED = [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000)]
UNASSIGNED = [*range(0x40000, 0xE0000, 61), *range(0xE1000, 0x110000, 61)]
"""A few of planes that have no character."""

EVERY = "".join(map(chr, ASSIGNED + UNASSIGNED))
CLASSES = r"\p{L}+|\p{M}+|\p{N}+|\s+|[^\p{L}\p{M}\p{N}\s]+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|'|[^\p{L}']+"

DIGITS = pre_tokenizers.Digits(individual_digits=True)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
ONLY_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def isolated(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


def read(splitter):
    bare = Tokenizer(models.BPE())
    if splitter:
        bare.pre_tokenizer = splitter
    return read_pieces(json.loads(bare.to_str())["pre_tokenizer"])


def test_texts_of_all_kinds_of_characters_are_cut_alike(splitter):
    rng = random.Random(0)
    texts = ["".join(kinds) for n in range(4) for kinds in itertools.product(KINDS, repeat=n)]
    texts += ["".join(rng.choices(KINDS, k=20)) for _ in range(2000)]
    texts += [
        f"x{quote}{first}{second}{rest}"
        for quote in "'’"
        for first in "sSſtTmMdDlLrRvVK\u212a"
        for second in "lLeE\u0301 "
        for rest in ("", "s", " ")
    ]
    assert cuts_alike(read(splitter), splitter, texts)


def test_every_character_is_of_the_same_class():
    splitter = pre_tokenizers.Sequence([isolated(CLASSES), ONLY_BYTES])
    assert cuts_alike(Pieces(CLASSES), splitter, [EVERY])
    assert not cuts_alike(Pieces(CLASSES.replace(r"\p{M}", r"\p{Mn}")), splitter, [EVERY])


def test_every_digit_is_cut_off():
    splitter = pre_tokenizers.Sequence([DIGITS, BYTE_LEVEL])
    assert cuts_alike(read(splitter), splitter, [EVERY])
    assert not cuts_alike(Pieces(r"\p{N}|[^\p{N}]+"), splitter, [EVERY])


def test_every_letter_goes_into_the_same_contractions():
    splitter = pre_tokenizers.Sequence([isolated(CONTRACTIONS), ONLY_BYTES])
    cased = [*range(0x3000), *range(0xA000, 0xAC00), *range(0xF900, 0x17000)]
    text = "".join(f"'{chr(code)}" for code in cased)
    assert cuts_alike(Pieces(CONTRACTIONS), splitter, [text])


@pytest.mark.parametrize(
    "splitter",
    [
        None,
        pre_tokenizers.Whitespace(),
        pre_tokenizers.ByteLevel(use_regex=False),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), BYTE_LEVEL]),
        pre_tokenizers.Sequence([DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        pre_tokenizers.Sequence([isolated(r"\p{L}+|\P{L}"), ONLY_BYTES]),
    ],
)
def test_unknown_syntax_is_not_read(splitter):
    assert read(splitter) is None
