"""The hub's cache in its published layout: refs, snapshots, no network."""

import json
import os
import shutil

import huggingface_hub.constants
import pytest

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.hub import load_tokenizer, model_files, read_generation, resolve
from clp_jax.errors import UserError


@pytest.fixture
def cached(tiny_model, tmp_path, monkeypatch):
    """A model in the cache as ``someone/tiny``, at two revisions."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    for commit, name in (("a" * 40, "main"), ("b" * 40, "v2")):
        shutil.copytree(tiny_model, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repository


def test_a_hub_id_is_found_in_the_cache(cached):
    assert resolve("someone/tiny") == cached / "snapshots" / ("a" * 40)
    assert load_model("someone/tiny").config.vocab_size == 300


def test_a_revision_is_found_in_the_cache(cached):
    assert resolve("someone/tiny", "v2").name == "b" * 40


def test_a_folder_is_itself(tiny_model):
    assert resolve(tiny_model) == tiny_model
    for use in (resolve, model_files):
        with pytest.raises(UserError, match="is a folder here and has no revision 'v2'"):
            use(tiny_model, "v2")


def test_a_missing_model_is_one_sentence(cached):
    with pytest.raises(UserError, match="someone/else is not a folder here, and the hub cannot"):
        resolve("someone/else")
    with pytest.raises(UserError, match="name a Hugging Face folder or a hub id"):
        resolve("no/such/folder")


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(tiny_model, tmp_path, name):
    folder, secret = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / name
    (folder / name).touch()
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    for use in (resolve, load_tokenizer, load_model):
        with pytest.raises(UserError, match=f"{name} leads out of its folder"):
            use(folder)


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_links_into_the_cache_are_fine(cached, tmp_path):
    (cached / "blobs").mkdir()
    snapshot, local = cached / "snapshots" / ("a" * 40), tmp_path / "local"
    local.mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(cached / "blobs" / str(number))
        file.symlink_to(f"../../blobs/{number}")
        (local / file.name).symlink_to(cached / "blobs" / str(number))
    for name in ("someone/tiny", local):
        assert load_model(name).config.vocab_size == 300
        assert load_tokenizer(name).eos == 0


def test_a_tokenizer_in_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer.json is not a regular file"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": "0"},
        {"eos_token_id": {"a": 1}},
        {"eos_token_id": [0, None]},
        {"eos_token_id": 0.5},
        {"suppress_tokens": 5},
        {"suppress_tokens": ["a"]},
        {"suppress_tokens": [True]},
    ],
)
def test_settings_of_generation_that_name_no_ids_are_refused(tmp_path, settings):
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=rf"config\.json: {next(iter(settings))} is .*, but must"):
        read_generation(tmp_path)


def test_settings_of_generation_are_read_where_there_are_any(tmp_path):
    assert read_generation(tmp_path) == {}
    settings = {"eos_token_id": [0, 3], "suppress_tokens": None, "temperature": 0.5}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings | {"auto_map": {}}))
    assert read_generation(tmp_path) == settings


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer: tokenizer.json is missing"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer(tiny_tokenizer, tmp_path):
    shutil.copytree(tiny_tokenizer, tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tokenizer(tmp_path / "broken")
