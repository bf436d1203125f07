import json

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from clp_jax.checkpoint.bounds import check_tokenizer
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.errors import UserError

VOCABULARY = {"a": 0, "b": 1}
PUBLISHED = {
    "llama 3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?"
    r"[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "deepseek": r"[\p{P}\p{S}\s]+$",
}


def write(folder, pattern):
    tokenizer = Tokenizer(models.BPE(VOCABULARY, []))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel()])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(\s*\s*)*x", r"(\d+\d+)+y"])
def test_expressions_that_backtrack_without_end_are_refused(tmp_path, pattern):
    write(tmp_path, pattern)
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be .* does not finish on"):
        check_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "PanicException"),
        (
            "normalizer",
            {"type": "Replace", "pattern": {"String": "q"}, "content": "x" * 10_000},
            "a hundred times as long",
        ),
    ],
)
def test_what_crashes_the_library_or_fills_memory_is_refused(tmp_path, part, value, reason, capfd):
    write(tmp_path, "a")
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(state | {part: value}))
    with pytest.raises(UserError, match=rf"tokenizer\.json cannot be used: .*{reason}"):
        load_tokenizer(tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pattern", PUBLISHED.values(), ids=PUBLISHED)
def test_expressions_of_published_tokenizers_pass(tmp_path, pattern):
    write(tmp_path, pattern)
    check_tokenizer(tmp_path)


def test_ids_far_beyond_the_tokens_are_refused(tiny_tokenizer, tmp_path):
    state = json.loads((tiny_tokenizer / "tokenizer.json").read_text())
    for place, highest, fine in (
        ("vocab", 60_000, True), ("vocab", 2**31 - 1, False), ("added", 2**31 - 1, False),
    ):  # fmt: skip
        state["model"]["vocab"]["Katzen"] = 60_000
        if place == "vocab":
            state["model"]["vocab"]["Katzen"] = highest
        else:
            state["added_tokens"].append({**state["added_tokens"][0], "id": highest})
        (tmp_path / "tokenizer.json").write_text(json.dumps(state))
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
        if fine:
            assert max(load_tokenizer(tmp_path).vocabulary.values()) == highest
        else:
            with pytest.raises(UserError, match=f"but one has the id {highest}"):
                load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "state", [{"model": {"vocab": 5}}, {"model": []}, {"added_tokens": {}}, {}]
)
def test_other_files_are_left_to_the_loader(tmp_path, state):
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    check_tokenizer(tmp_path)
