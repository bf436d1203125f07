"""A helper for a tokenizer of one's own, against a plain loop over transformers' tokenizer."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, normalizers
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clp_jax.errors import UserError
from clp_jax.transfer.helper import open_helper
from clp_jax.transfer.stage import transfer_model

TABLE = "transformer.wte.weight"
OTHER = "<|other|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with nothing but a tokenizer, whose special tokens come last."""
    bpe = ByteLevelBPETokenizer()
    sentences = ["Der Fluss ist tief. Katzen schlafen; Häuser stehen."] * 20
    bpe.train_from_iterator(sentences, vocab_size=300)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": [OTHER]})
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


def by_a_loop(helper, folder):
    """A row for each id of the folder's tokenizer, and in how many pieces each token is cut."""
    rows = load_file(helper / "model.safetensors")[TABLE].astype(np.float64)
    old, new = map(AutoTokenizer.from_pretrained, (helper, folder))
    table, lengths = np.zeros((len(new), rows.shape[1]), np.float32), np.zeros(len(new), int)
    for token, id in new.get_vocab().items():
        text = decoders.ByteLevel().decode([token])
        ids = old.encode(text, add_special_tokens=False)
        if token == new.eos_token:
            ids = [old.eos_token_id]
        elif token == OTHER:
            ids = []
        elif "\N{REPLACEMENT CHARACTER}" in text:  # A part of a character.
            ids = [piece.id for piece in old.backend_tokenizer.model.tokenize(token)]
        if ids:
            table[id], lengths[id] = np.mean([rows[piece] for piece in ids], axis=0), len(ids)
    return table, lengths


def test_a_row_is_the_mean_of_the_pieces_rows(byte_pair, folder):
    helper = open_helper(byte_pair[1], folder)
    table, lengths = by_a_loop(byte_pair[1], folder)
    read = helper.spelling.read(helper.tensors[TABLE], np.arange(len(table)))
    np.testing.assert_allclose(read.rows, table, rtol=1e-6, atol=1e-7)
    several = int((lengths > 1).sum())
    assert several > 10
    assert helper.spelling.counts == {
        "one token": int((lengths == 1).sum()), "several": several, "normalised": 0, "none": 1,
    }  # fmt: skip
    one = lengths == 1
    np.testing.assert_array_equal(read.rows[one], table[one])


def test_it_is_as_good_as_a_model_with_these_rows(byte_pair, folder, tmp_path):
    """Every row of the new model is what a helper with the loop's rows gives."""
    source, helper = byte_pair
    made = shutil.copytree(folder, tmp_path / "made")
    save_file({"rows": by_a_loop(helper, folder)[0]}, made / "model.safetensors")
    expected = transfer_model(source, made, tmp_path / "expected", method="ridge")
    out = tmp_path / "out"
    found = transfer_model(source, helper, out, method="ridge", tokenizer=str(folder))
    tables = [
        load_file(tmp_path / name / "model.safetensors")[TABLE] for name in ("expected", "out")
    ]
    np.testing.assert_allclose(tables[1], tables[0], rtol=1e-4, atol=1e-5)
    rows = found["tables"][TABLE]["rows"]
    assert rows == expected["tables"][TABLE]["rows"]
    assert rows["fallback: mean"] == found["spelling"]["none"] == 1
    assert (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert f"with the vocabulary of {folder.name}" in (out / "README.md").read_text("utf-8")
    assert found["command"].startswith("clp-jax transfer --source")
    assert f"--tokenizer {folder}" in found["command"]


def test_its_own_tokenizer_changes_nothing(byte_pair):
    assert open_helper(byte_pair[1], byte_pair[1]).spelling is None


def test_a_helper_without_capitals_spells_what_its_normalisation_leaves(folder, tmp_path):
    names = ["[UNK]", "der", "fluss", "##en", "##i", ";"]
    tokenizer = Tokenizer(
        models.WordPiece({name: id for id, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(tmp_path)
    save_file({"rows": np.eye(6, dtype=np.float32)}, tmp_path / "model.safetensors")
    helper = open_helper(tmp_path, folder)
    ids = AutoTokenizer.from_pretrained(folder).get_vocab()
    asked = np.array([ids["Der"], ids["ĠFluss"], ids["en"], ids[";"], ids["Ġ"], ids["Ã"]])
    rows = helper.spelling.read(helper.tensors["rows"], asked).rows
    np.testing.assert_array_equal(rows, np.array([*np.eye(6)[[1, 2, 3, 5]], *np.zeros((2, 6))]))
    assert helper.spelling.counts["normalised"] == 2
    assert sum(helper.spelling.counts.values()) == len(ids)


def test_a_missing_tokenizer_is_an_error(byte_pair, tmp_path):
    with pytest.raises(UserError, match="/no/folder is not a folder"):
        transfer_model(*byte_pair, tmp_path / "out", tokenizer="/no/folder")
