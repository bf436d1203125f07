import json
import re

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clp_jax.errors import UserError
from clp_jax.vocabulary import compare_vocabularies, fertility


@pytest.fixture
def models_of_words(tmp_path):
    """Two folders with tokenizers of whole words."""
    for name, words in (
        ("source", ["die", "Katze", "b\n", "x"]),
        ("target", ["katze", "die", "[", "und"]),
    ):
        tokenizer = Tokenizer(models.WordLevel(dict(zip(words, (0, 1, 2, 6), strict=True))))
        tokenizer.model.unk_token = words[-1]
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
        fast.save_pretrained(tmp_path / name)
    return tmp_path / "source", tmp_path / "target"


def test_report_in_text_and_json(models_of_words):
    report = compare_vocabularies(*models_of_words, fuzzy=True)
    text = str(report)
    assert re.search(r"in both +3 +60.0% +60.0%", text)
    assert re.search(r"nearly the same +1 +20.0% +20.0%  'katze' = 'Katze'", text)
    assert re.search(r"only in the source +2 +40.0%  'b\\n'  'x'", text)
    assert re.search(r"unassigned ids +2 +2 +0\n?", text)
    assert len(text.splitlines()) < 24
    assert max(map(len, text.splitlines())) <= 100
    values = json.loads(json.dumps(report.to_dict()))
    assert (values["shared"], values["missing"], values["gaps"]) == (3, 2, 2)
    assert values["kinds"]["role"] == {
        "tokens": 1, "share_of_source": 1 / 5, "share_of_target": 1 / 5
    }  # fmt: skip
    assert values["text"] is None


def test_running_text(models_of_words, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("die katze und die ü")
    text = compare_vocabularies(*models_of_words, [str(file)]).text
    assert (text.bytes, text.words, text.cut) == (20, 5, False)
    assert (text.source_tokens, text.target_tokens) == (5, 5)
    assert text.matched_tokens_share == 2 / 5
    assert text.matched_bytes_share == 6 / (3 + 5 + 3 + 3 + 3)
    assert text.to_dict()["target_tokens_per_byte"] == 1 / 4


def test_no_more_text_is_read_than_is_needed(models_of_words, tmp_path, monkeypatch):
    monkeypatch.setattr(fertility, "MAX_BYTES", 9)
    file = tmp_path / "text.jsonl"
    file.write_text('{"t": "die die"}\n{"t": "katze"}\nbroken\n')
    report = compare_vocabularies(*models_of_words, [str(file)], text_field="t")
    assert (report.text.bytes, report.text.words, report.text.cut) == (9, 3, True)
    assert "On the first 9 bytes of running text" in str(report)


def test_missing_text_is_reported(models_of_words):
    with pytest.raises(UserError, match="matches no file"):
        compare_vocabularies(*models_of_words, ["nothing.txt"])
