"""Windows in ids of another tokenizer, against the texts of all beginnings."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.tokenizer import Tokenizer as Owner
from clp_jax.tokenizer.owner import ROLES
from clp_jax.vocabulary import read_vocabulary
from clp_jax.vocabulary.align import Aligner

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(merges=(), normalizer=None, opening=False):
    """A byte-level BPE with these merges, <e> as its end of text and <b> to open one."""
    names = ["<e>", "<b>", *LETTERS, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({name: id for id, name in enumerate(names)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<e>", "<b>"])
    if normalizer:
        tokenizer.normalizer = normalizer
    if opening:
        tokenizer.post_processor = processors.TemplateProcessing("<b> $A", None, [("<b>", 1)])
    roles = dict.fromkeys(ROLES) | {"eos": "<e>", "bos": "<b>"}
    return Owner.from_backend("tiny", tokenizer, roles)


ONE = (("a", "b"), ("ab", "c"), ("Ã", "¤"), ("d", "e"))
OTHER = (("b", "c"), ("c", "d"), ("e", "Ġ"), ("Ġ", "a"))


def spelled(tokens, tokenizer, ids):
    """What ids stand for, document by document."""
    texts = [b""]
    for id in ids:
        if id == tokenizer.eos:
            texts.append(b"")
        elif not tokens[id].roles:
            texts[-1] += tokens[id].bytes
    return texts


def check(target, source, window, length=400):
    """Every position is right, and none is missing; returns the share of tokens with one."""
    (ids,), (positions,) = Aligner(target, source, length)(np.array([window], np.int32))
    used = ids.tolist()
    own, others = (read_vocabulary(tokenizer).tokens for tokenizer in (target, source))
    ends = {}
    for place in range(len(used)):
        texts = spelled(others, source, used[: place + 1])
        if used[place] not in (source.eos, source.bos):
            ends.setdefault((len(texts), texts[-1]), place)
    for i, place in enumerate(positions.tolist()):
        texts = spelled(own, target, window[: i + 1])
        key = len(texts), texts[-1]
        if window[i] in (target.eos, target.bos):
            assert place == -1
        else:
            assert place == ends.get(key, -1), (i, key)
    return np.mean(positions >= 0)


@pytest.mark.parametrize("opening", [False, True])
def test_positions_are_where_both_have_read_the_same_bytes(opening):
    target, source = byte_level(ONE), byte_level(OTHER, opening=opening)
    texts = ["abcde abc", "", "cdä bcde aä", "ä"]
    window = [id for document in target.encode_documents(texts) for id in document.tolist()]
    assert check(target, source, window) > 0.5
    assert check(source, target, [*source.encode("bcd"), source.eos, *source.encode("e a")]) > 0.3


def test_a_window_may_begin_and_end_inside_a_character():
    target, source = byte_level(), byte_level(OTHER)
    ids = target.encode("äbcde ä")
    (found,), (positions,) = Aligner(target, source, 20)(np.array([ids[1:-1]], np.int32))
    assert spelled(read_vocabulary(source).tokens, source, found)[0] == b"bcde "
    assert positions.tolist() == [-1, 0, -1, -1, 3, -1, -1] or (positions >= 0).sum() == 3


def test_a_document_that_the_other_spells_with_other_bytes_has_no_position():
    target, source = byte_level(ONE), byte_level(OTHER, normalizer=normalizers.Lowercase())
    window = [*target.encode("Abc"), target.eos, *target.encode("abc")]
    _, (positions,) = Aligner(target, source, 20)(np.array([window], np.int32))
    first = window.index(target.eos)
    assert (positions[: first + 1] == -1).all()
    assert positions[-1] >= 0


def test_what_is_too_long_is_cut():
    target, source = byte_level(ONE), byte_level()
    window = target.encode("abc" * 10)
    (ids,), (positions,) = Aligner(target, source, 8)(np.array([window], np.int32))
    assert len(ids) == 8
    assert positions.tolist() == [2, 5, *[-1] * 8]


@pytest.mark.slow
def test_real_tokenizers(shared_data, documents):
    names = "de_unigram50k_focus", "gpt2"
    target, source = (load_tokenizer(shared_data / "tokenizers" / name) for name in names)
    texts = [text[:100] for text in documents[:3]]
    window = [id for document in target.encode_documents(texts) for id in document.tolist()]
    assert check(target, source, window) > 0.5
