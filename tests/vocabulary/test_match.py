import json

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clp_jax.vocabulary import match_vocabularies, read_vocabulary


def words(vocabulary, *, added=(), **roles):
    """A vocabulary whose names are plain text."""
    return fast(Tokenizer(models.WordLevel(vocabulary)), added, roles)


def sentencepiece(vocabulary, *, added=(), **roles):
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    return fast(tokenizer, added, roles)


def byte_level(vocabulary, *, added=(), **roles):
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    return fast(tokenizer, added, roles)


def fast(tokenizer, added, roles):
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in added])
    return read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles))


def pairs(report):
    """(source id, kind) by target id."""
    found = zip(report.source_ids.tolist(), report.kinds.tolist(), strict=True)
    return dict(zip(report.target_ids.tolist(), found, strict=True))


def test_classes_of_ids():
    source = words({"a": 0, "b": 1, "c": 7})
    target = words({"c": 0, "x": 2, "a": 3, "<added>": 6})
    report = match_vocabularies(source, target)
    assert report.target_ids.tolist() == [0, 3]
    assert report.source_ids.tolist() == [7, 0]
    assert report.missing_ids.tolist() == [2, 6]
    assert report.unassigned_ids.tolist() == [1, 4, 5]
    assert report.classes["ids without a token"] == {"source": 5, "target": 3, "matched": 0}
    assert (report.source_size, report.target_size) == (3, 4)
    assert (report.source_rows, report.target_rows) == (8, 7)
    assert (report.source_share, report.target_share) == (2 / 3, 2 / 4)
    assert report.examples["exact"] == ["'c'", "'a'"]
    assert report.examples["source"] == ["'b'"]
    assert report.examples["target"] == ["'x'", "'<added>'"]


def test_the_same_bytes_under_different_strings():
    source = byte_level({"Ġhaus": 0, "haus": 1, "Ã¼ber": 2, "Ċ": 3, "Ġ": 4, "Ã": 5, "ĠĠ": 6})
    target = sentencepiece(
        {"▁haus": 0, "haus": 1, "über": 2, "<0x0A>": 3, "▁": 4, "<0xC3>": 5, "▁▁": 6, "Haus": 7}
    )
    assert match_vocabularies(source, target).source_ids.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert match_vocabularies(target, source).source_ids.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_two_names_of_one_id_are_one_row():
    source, target = words({"a": 0, "b": 1}), words({"a": 0, "alias": 0, "c": 1})
    report = match_vocabularies(source, target)
    assert sorted([*report.target_ids, *report.missing_ids]) == [0, 1]
    assert (report.target_size, len(target.names)) == (2, 2)


def test_of_source_tokens_with_the_same_bytes_the_models_own_is_taken_first():
    own = {"<0x41>": 0, "A": 1, "<0x42>": 2}
    source = sentencepiece(own, added=["B", " C"])
    assert source.added == {3, 4}
    target = words({"A": 0, "B": 1, " C": 2})
    report = match_vocabularies(source, target)
    assert report.source_ids.tolist() == [1, 2, 4]
    assert report.classes["same bytes as another"] == {"source": 2, "target": 0, "matched": 0}


def test_several_target_tokens_take_the_same_row():
    source, target = words({"A": 5, "b": 0}), sentencepiece({"<0x41>": 0, "A": 1})
    report = match_vocabularies(source, target)
    assert pairs(report) == {0: (5, "exact"), 1: (5, "exact")}
    assert report.source_share == 1 / 2
    assert report.classes["same bytes as another"] == {"source": 0, "target": 1, "matched": 1}


def test_roles_not_spellings():
    source = words({"<|endoftext|>": 0, "a": 1, "<s>": 2, "<mask>": 3},
                   bos_token="<|endoftext|>", eos_token="<|endoftext|>")  # fmt: skip
    target = words({"<s>": 0, "</s>": 1, "<pad>": 2, "<mask>": 3, "<|endoftext|>": 4, "a": 5},
                   bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                   mask_token="<mask>")  # fmt: skip
    report = match_vocabularies(source, target)
    assert pairs(report) == {
        0: (0, "role"), 1: (0, "role"), 2: (0, "role"), 5: (1, "exact")
    }  # fmt: skip
    assert report.missing_ids.tolist() == [3, 4]
    assert report.anchors.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ({"cls_token": "[C]"}, {"bos_token": "<s>"}, ["[C]"]),
        ({"bos_token": "<s>"}, {"cls_token": "[C]"}, ["<s>"]),
        ({"sep_token": "[S]"}, {"eos_token": "</s>"}, ["[S]"]),
        ({"eos_token": "</s>", "sep_token": "[S]"}, {"sep_token": "[X]"}, ["[S]"]),
        ({"eos_token": "</s>"}, {"pad_token": "<pad>"}, ["</s>"]),
        ({"eos_token": "</s>"}, {"unk_token": "<u>"}, []),
        ({"eos_token": "</s>"}, {"mask_token": "<m>"}, []),
        ({"unk_token": "<u>"}, {"unk_token": "[U]"}, ["<u>"]),
        ({"unk_token": "<u>"}, {"bos_token": "<x>", "unk_token": "<x>"}, ["<u>"]),
        (["<|im_start|>", "<|im_end|>"], ["<start_of_turn>", "<end_of_turn>"],
         ["<|im_start|>", "<|im_end|>"]),
        (["<|assistant|>", "<x>"], ["<y>", "<x>", "<|assistant|>"], ["<x>", "<|assistant|>"]),
    ],
)  # fmt: skip
def test_the_role_that_serves(source, target, expected):
    def special(tokens):
        tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
        if isinstance(tokens, list):
            tokenizer.add_special_tokens(tokens)
        return fast(tokenizer, (), tokens if isinstance(tokens, dict) else {})

    source = special(source)
    report = match_vocabularies(source, special(target))
    found = report.source_ids[report.kinds == "role"].tolist()
    assert [source.names[id] for id in found] == expected


def test_fuzzy_takes_only_what_is_left_and_the_least_different():
    names = {"haus": 0, "Haus": 1, "▁Katze": 2, "▁HUND": 3, "Straße": 4, "<0xC3>": 5}
    source = sentencepiece(names, eos_token="</s>")
    target = sentencepiece(
        {"haus": 0, "▁haus": 1, "KATZE": 2, "▁hund": 3, "strasse": 4, "<0xE3>": 5, "</S>": 6}
    )
    assert pairs(match_vocabularies(source, target)) == {0: (0, "exact")}
    report = match_vocabularies(source, target, fuzzy=True)
    assert pairs(report) == {
        0: (0, "exact"), 1: (0, "fuzzy"), 2: (2, "fuzzy"), 3: (3, "fuzzy"), 4: (4, "fuzzy")
    }  # fmt: skip
    assert report.fuzzy == {"word start": 1, "case": 2, "word start and case": 1}


def test_no_shared_token_and_empty_vocabularies():
    assert len(match_vocabularies(words({"a": 0}), words({"b": 0})).target_ids) == 0
    empty = match_vocabularies(words({}), words({}))
    assert (empty.target_rows, empty.target_share, empty.source_share) == (0, 0.0, 0.0)


def raw_strings(shared_data, name):
    """The names in a tokenizer's file, as they are written there."""
    file = shared_data / "tokenizers" / name / "tokenizer.json"
    vocabulary = json.loads(file.read_text("utf-8"))["model"]["vocab"]
    return set(vocabulary) if isinstance(vocabulary, dict) else {name for name, _ in vocabulary}


@pytest.mark.slow
def test_the_overlap_of_byte_level_vocabularies_is_that_of_their_strings(read, shared_data):
    source, target = (read(name)[1] for name in ("gpt2", "de_bpe50k_focus"))
    shared = raw_strings(shared_data, "gpt2") & raw_strings(shared_data, "de_bpe50k_focus")
    report = match_vocabularies(source, target)
    exact = report.source_ids[report.kinds == "exact"].tolist()
    assert {source.names[id] for id in exact} == shared
    assert len(exact) == len(shared) == 11_089
    every_id = np.concatenate([report.target_ids, report.missing_ids, report.unassigned_ids])
    assert sorted(every_id.tolist()) == list(range(report.target_rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "factor"), [("gpt2", 2), ("de_bpe50k_focus", 3)], ids=["gpt2", "german"]
)
def test_the_overlap_with_unigram_does_not_collapse(read, shared_data, source, factor):
    raw = raw_strings(shared_data, source) & raw_strings(shared_data, "de_unigram50k_focus")
    report = match_vocabularies(read(source)[1], read("de_unigram50k_focus")[1])
    assert (report.kinds == "exact").sum() > factor * len(raw)


@pytest.mark.slow
def test_umlauts_survive_a_change_of_family(read):
    source, target = (read(name)[1] for name in ("de_bpe50k_focus", "de_unigram50k_focus"))
    report = match_vocabularies(source, target)
    matched = {target.tokens[id].bytes.decode() for id in report.target_ids.tolist()}
    assert {" über", " für", " können", " Straße"} <= matched
