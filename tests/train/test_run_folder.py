"""Runs in a bucket, which is played by a folder here: what is written there must be enough."""

import copy
import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import xxhash

from clp_jax.checkpoint import orbax
from clp_jax.checkpoint.hf import save_model
from clp_jax.config import RunConfig
from clp_jax.data.corpus.store import write_corpus
from clp_jax.errors import UserError
from clp_jax.files import read_json, write_json
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.train import run_folder as folder
from clp_jax.train import run_folder as place
from clp_jax.train.inputs import open_inputs
from clp_jax.train.loop import train_model
from clp_jax.train.run_folder import RunStorage, compare_record, run_record

from .conftest import CONFIG, leaves, on_step, sentences, without_times, write_model_files


def find_run(config, *, resume):
    return folder.find_run(config, RunStorage(config.train.out).folder, resume=resume)


def create_run(config, model):
    folder.create_run(config, RunStorage(config.train.out), model, "", {})


@pytest.fixture
def started(settings, inputs):
    create_run(RunConfig.from_dict(settings), inputs / "model")
    return settings


def changed(settings, key, value):
    other = copy.deepcopy(settings)
    section, name = key.split(".")
    other[section][name] = value
    return RunConfig.from_dict(other)


def test_an_empty_folder_is_a_new_run(settings):
    assert find_run(RunConfig.from_dict(settings), resume=True) is False


def test_a_folder_is_resumed_only_when_asked(started):
    config = RunConfig.from_dict(started)
    assert find_run(config, resume=True) is True
    with pytest.raises(UserError, match=r"run exists already: add --resume to continue it"):
        find_run(config, resume=False)


def test_model_files_are_copied(started, inputs, tmp_path):
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        copied = tmp_path / "run" / "model" / file
        assert copied.read_bytes() == (inputs / "model" / file).read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mesh.data", 2),
        ("train.remat", "none"),
        ("train.loss_chunk", 3),
        ("train.log_every", 7),
        ("train.keep_checkpoints", 9),
        ("data.train", "moved/corpus"),
        ("data.validation", "moved/validation"),
        ("model.path", "moved/model"),
    ],
)
def test_what_does_not_change_the_numbers_may_change(started, key, value):
    assert find_run(changed(started, key, value), resume=True)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("train.steps", 50, r"train.steps was 4 and is 50"),
        ("train.batch_size", 16, r"train.batch_size was 8 and is 16"),
        ("train.dtype", "float32", r"train.dtype was bfloat16 and is float32"),
        ("train.seed", 1, r"train.seed was 0 and is 1"),
        ("optimizer.learning_rate", 0.5, r"optimizer.learning_rate was 0.01 and is 0.5"),
        ("data.validation", None, r"data.validation was a corpus and is none"),
        ("data.validation", {"de": "a", "en": "b"}, r"was a corpus and is de, en"),
        (
            "data.train",
            [{"path": "a"}, {"path": "b"}],
            "1 without weights and is 2 without weights",
        ),
        (
            "data.train",
            [{"path": "a", "weight": 2}],
            r"was 1 without weights and is \[2.0\]",
        ),
        ("model.dropout", 0.3, r"model.dropout was None and is 0.3"),
    ],
)
def test_what_changes_the_numbers_is_refused_by_key(started, key, value, told):
    with pytest.raises(UserError, match=told):
        find_run(changed(started, key, value), resume=True)


def test_steps_may_change_under_a_constant_learning_rate(settings, inputs):
    settings["optimizer"]["schedule"] = "constant"
    create_run(RunConfig.from_dict(settings), inputs / "model")
    assert find_run(changed(settings, "train.steps", 50), resume=True)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that is the bucket ``gs://bucket``; the cache is here, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def path(address):
        return tmp_path / "bucket" / address.removeprefix("gs://bucket/")

    for module in (place, orbax):
        monkeypatch.setattr(module, "epath", SimpleNamespace(Path=path))
    return tmp_path / "bucket"


class Killed(BaseException):
    """What no part of the program catches."""


def kill(batch):
    raise Killed


@pytest.mark.slow
def test_a_run_resumes_from_the_bucket_alone(settings, bucket, monkeypatch, tmp_path):
    whole = train_model(RunConfig.from_dict(settings)).folder
    settings["train"]["out"] = "gs://bucket/de/run"
    config = RunConfig.from_dict(settings)
    with monkeypatch.context() as patch:
        on_step(patch, 3, kill)
        with pytest.raises(Killed):
            train_model(config)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=r"^gs://bucket/de/run exists already: add --resume"):
        train_model(config)

    resumed = train_model(config, resume=True)
    names = {file.name for file in whole.iterdir()}
    assert {file.name for file in (bucket / "de" / "run").iterdir()} == names
    for run in (resumed.folder, bucket / "de" / "run"):
        assert without_times(run) == without_times(whole)
    for ours, theirs in zip(leaves(bucket / "de" / "run"), leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (resumed.folder / "checkpoints").exists()


def test_a_folder_on_a_disk_is_used_where_it_is(tmp_path):
    there = RunStorage(str(tmp_path / "run"))
    there.fetch()
    there.publish()
    assert there.folder == Path(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImportError("gcsfs"), r"gs://bucket/run needs gcsfs: install clp"),
        (PermissionError("no entry"), r"gs://bucket/run cannot be reached \(PermissionError: no "),
    ],
)
def test_a_bucket_that_cannot_be_read_is_reported(bucket, monkeypatch, error, sentence):
    def path(address):
        raise error

    monkeypatch.setattr(place, "epath", SimpleNamespace(Path=path))
    with pytest.raises(UserError, match=sentence):
        RunStorage("gs://bucket/run").fetch()


SHAPES = {"a": np.zeros((3, 4)), "b": {"c": np.zeros(5)}}


def record_of(settings, **changes):
    config = RunConfig.from_dict(settings)
    return config, (inputs := open_inputs(config)), run_record(config, inputs, SHAPES)


def test_a_run_says_what_it_was_started_with(settings):
    _, _, record = record_of(settings)
    train, validation = settings["data"]["train"], settings["data"]["validation"]
    manifests = {name: read_json(f"{name}/manifest.json") for name in (train, validation)}
    assert record["hashes"] == {
        "training corpus 1": manifests[train]["fingerprint"],
        "validation corpus": manifests[validation]["fingerprint"],
        "tokenizer": manifests[train]["tokenizer_hash"],
    }
    assert record["parameters"] == 17
    assert record["weights"] == {}, "they are drawn"
    assert record["devices"] == {"kind": "cpu", "count": 8, "processes": 1}
    assert record["versions"]["jax"] == jax.__version__
    assert record["command"] == shlex.join(sys.argv)
    assert json.loads(json.dumps(record)) == record


def test_weights_are_known_by_their_sums(settings, inputs, tmp_path):
    model = initialize(read_decoder_config(CONFIG), seed=5, mesh=single_device_mesh())
    save_model(model, tmp_path / "pretrained", origin=inputs / "model")
    settings["model"] = {"path": str(tmp_path / "pretrained")}
    content = (tmp_path / "pretrained" / "model.safetensors").read_bytes()
    expected = {"model.safetensors": xxhash.xxh3_128(content).hexdigest()}
    assert record_of(settings)[2]["weights"] == expected


def test_another_corpus_under_the_same_name_is_refused(settings, tmp_path):
    tokenizer = write_model_files(tmp_path, CONFIG)
    for part in ("train", "validation"):
        settings["data"][part] = str(tmp_path / part)
        write_corpus(sentences(20, 0), tokenizer, tmp_path / part)
    config, inputs, record = record_of(settings)
    write_json(tmp_path / "run.json", record)
    compare_record(tmp_path, config, inputs)

    write_corpus(sentences(20, 7), tokenizer, tmp_path / "other")
    (tmp_path / "validation").rename(tmp_path / "gone")
    (tmp_path / "other").rename(tmp_path / "validation")
    inputs = open_inputs(config)
    with pytest.raises(
        UserError, match=r"was started with another validation corpus \(its hash was .* new "
    ):
        compare_record(tmp_path, config, inputs)


def test_corpora_may_move(settings, tmp_path):
    _, _, record = record_of(settings)
    write_json(tmp_path / "run.json", record)
    for part in ("train", "validation"):
        shutil.copytree(settings["data"][part], tmp_path / part)
        settings["data"][part] = str(tmp_path / part)
    config, inputs, moved = record_of(settings)
    compare_record(tmp_path, config, inputs)
    assert moved["hashes"] == record["hashes"]


def test_a_model_may_move_and_other_weights_are_refused(settings, inputs, tmp_path):
    for name, seed in (("first", 5), ("moved", 5), ("other", 6)):
        model = initialize(read_decoder_config(CONFIG), seed=seed, mesh=single_device_mesh())
        save_model(model, tmp_path / name, origin=inputs / "model")
    settings["model"] = {"path": str(tmp_path / "first")}
    write_json(tmp_path / "run.json", record_of(settings)[2])
    settings["model"] = {"path": str(tmp_path / "moved")}
    compare_record(tmp_path, *record_of(settings)[:2])
    settings["model"] = {"path": str(tmp_path / "other")}
    for lost in ((), ("weights",)):
        record = record_of(settings)[2] if lost else read_json(tmp_path / "run.json")
        write_json(tmp_path / "run.json", {k: v for k, v in record.items() if k not in lost})
        with pytest.raises(UserError, match=r"other weights than those in .*other, and has no"):
            compare_record(tmp_path, *record_of(settings)[:2])


def test_other_versions_are_reported_and_accepted(settings, tmp_path, capsys):
    config, inputs, record = record_of(settings)
    write_json(tmp_path / "run.json", record)
    compare_record(tmp_path, config, inputs)
    assert capsys.readouterr().out == ""
    record["versions"]["jax"] = "0.1"
    write_json(tmp_path / "run.json", record)
    compare_record(tmp_path, config, inputs)
    told = capsys.readouterr().out
    assert f"jax was 0.1 and is {jax.__version__}: results may differ in rounding." in told
