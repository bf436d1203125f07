import json
import shutil

import pytest
from transformers import AutoTokenizer

from clp_jax.errors import UserError
from clp_jax.tokenizer import read_tokenizer

TEXT = "Die Stadt liegt am Fluss."


@pytest.fixture
def copy(folder_of, tmp_path):
    return shutil.copytree(folder_of("byte_level"), tmp_path / "copy")


def configure(folder, **settings):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_special_tokens_are_named_in_either_file(copy):
    configure(copy, eos_token={"content": "</s>"}, bos_token=None, model_max_length=64)
    tokenizer = read_tokenizer(copy, "it")
    assert (tokenizer.eos, tokenizer.bos, tokenizer.max_length) == (0, None, 64)
    (copy / "tokenizer_config.json").unlink()
    (copy / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<s>"}))
    assert read_tokenizer(copy, "it").eos == 1


def test_where_none_is_named_the_class_has_its_own(copy):
    state = json.loads((copy / "tokenizer.json").read_text().replace("</s>", "<|endoftext|>"))
    (copy / "tokenizer.json").write_text(json.dumps(state))
    configure(copy, tokenizer_class="GPT2Tokenizer", model_max_length=10**30)
    tokenizer = read_tokenizer(copy, "it")
    assert (tokenizer.eos, tokenizer.bos, tokenizer.max_length) == (0, 0, None)


def test_older_files_are_read_by_transformers(shared_data, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(shared_data / "tokenizers" / "gpt2" / name, tmp_path)
    tokenizer = read_tokenizer(tmp_path, "it")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode(TEXT) == theirs(TEXT)["input_ids"]
    assert tokenizer.eos == theirs.eos_token_id


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}', ""])
def test_damaged_files_are_refused(copy, content):
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="The tokenizer in it cannot be loaded"):
        read_tokenizer(copy, "it")


def test_a_configuration_that_is_not_an_object_is_refused(copy):
    (copy / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer_config\.json"):
        read_tokenizer(copy, "it")


@pytest.mark.parametrize("name", ["gpt2", "de_bpe50k_focus", "de_unigram50k_focus"])
def test_real_tokenizers_give_the_ids_of_their_file(shared_data, name):
    import tokenizers

    folder = shared_data / "tokenizers" / name
    tokenizer = read_tokenizer(folder, name)
    text = "Im Jahr 1989 kamen u\u0308ber 100.000 Menschen … und „gingen“ wieder.\n" * 3
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode(text) == backend.encode(text, add_special_tokens=False).ids
    assert tokenizer.opening == ()
    assert tokenizer.rows == backend.get_vocab_size()
