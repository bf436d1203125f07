"""llama.cpp gives the ids of the tokenizer, or the converter says for which text it does not."""

import json
import re

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Split

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.cli import main
from clp_jax.convert import convert_checkpoint
from clp_jax.convert.gguf.pre_tokenizers import PRE_TOKENIZERS
from clp_jax.errors import UserError
from clp_jax.tokenizer.expressions import WORDS

from ..marks import slow
from .llama_cpp import LlamaCpp, same_ids
from .tokenizers_of_all_kinds import (
    GEMMA,
    TEXTS,
    bpe,
    sentence_piece,
    sentences,
    write_model,
)

QUICK = ("gpt-2", "llama-bpe")


@pytest.mark.parametrize(
    "known",
    [known if known.name in QUICK else slow(known) for known in PRE_TOKENIZERS],
    ids=lambda known: known.name,
)
def test_llama_cpp_gives_the_same_ids(known, model, tmp_path):
    split = [Split(Regex(expression), "isolated") for expression in known.expressions]
    write_model(model, bpe(*split, ignore_merges=known.ignore_merges))
    report = convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
    assert (report.vocabulary.pre.name, report.vocabulary.pre.same) == (known.name, True)
    same_ids(model, tmp_path / "model.gguf", 1000)


def test_digits_and_the_expression_of_the_library_are_recognised(model, tmp_path):
    write_model(model, bpe(Digits(individual_digits=True), use_regex=True))
    report = convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
    assert report.vocabulary.pre.name == "smollm"
    same_ids(model, tmp_path / "model.gguf", 200)


def test_llama_cpp_gives_the_same_ids_as_sentence_piece(model, tmp_path):
    write_model(model, sentence_piece(), "<eos>", model_type="gemma3_text", **GEMMA)
    convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
    same_ids(model, tmp_path / "model.gguf", 300)


def test_the_nearest_pre_tokenizer_is_found_on_text_and_the_share_is_llama_cpps(
    model, tmp_path, capsys
):
    write_model(model, bpe(Split(Regex(WORDS), "isolated")))
    with pytest.raises(UserError, match=r"no pre-tokenizer that splits .*: give text with --data"):
        convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
    assert not [*tmp_path.glob("*gguf*")]
    lines = [text.replace("\n", " ").replace("\r", " ").strip() for text in sentences(400)]
    lines = [line for line in lines if line and len(line.splitlines()) == 1]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    main(["convert", str(model), str(tmp_path / "model.gguf"), "--to", "gguf", "--data", str(text)])
    tokenizer, llama_cpp = load_tokenizer(model), LlamaCpp(tmp_path / "model.gguf")
    differing = sum(llama_cpp.encode(line) != tokenizer.encode(line) for line in lines)
    assert 0 < differing < len(lines) / 2
    said = capsys.readouterr().out
    assert re.search(r"no pre-tokenizer that splits .* does; \S+ is the nearest\.\n", said)
    assert f"Of {len(lines)} lines, {differing / len(lines):.2%} get other ids there." in said


def test_a_tokenizer_that_begins_with_a_space_says_so(model, tmp_path):
    tokenizer = bpe(use_regex=True)
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    write_model(model, tokenizer)
    data = tmp_path / "text.txt"
    data.write_text("\n".join(TEXTS))
    report = convert_checkpoint(model, tmp_path / "model.gguf", "gguf", data=[data])
    assert (report.vocabulary.pre.name, report.vocabulary.pre.differing) == ("gpt-2", 0)
    assert "Begin a prompt with a space" in str(report)
    ours, llama_cpp = load_tokenizer(model), LlamaCpp(tmp_path / "model.gguf")
    for text in TEXTS[:20]:
        assert llama_cpp.encode(f" {text}") == ours.encode(text)


def lowercase():
    tokenizer = bpe(use_regex=True)
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def one_merge_per_token():
    state = json.loads(sentence_piece().to_str())
    state["model"]["merges"] = state["model"]["merges"][::2]
    return Tokenizer.from_str(json.dumps(state))


def unigram():
    tokenizer = Tokenizer(models.Unigram([("<|endoftext|>", 0.0), ("a", -1.0)], 0))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lowercase, r"normalises text \(Lowercase\), and llama.cpp does not"),
        (one_merge_per_token, "are not those of a SentencePiece model"),
        (unigram, "is Unigram, and a GGUF file can be written for byte-level BPE"),
    ],
)
def test_tokenizers_that_llama_cpp_does_not_have_are_refused(make, message, model, tmp_path):
    write_model(model, make(), "<eos>" if make is one_merge_per_token else "<|endoftext|>")
    with pytest.raises(UserError, match=message):
        convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
