import json
import shlex
import shutil
import sys

import jax
import numpy as np
import pytest
import xxhash

from clp_jax.checkpoint.hf import save_model
from clp_jax.config import RunConfig
from clp_jax.data.store import write_corpus
from clp_jax.errors import UserError
from clp_jax.files import read_json, write_json
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.train.inputs import open_inputs
from clp_jax.train.record import compare_record, run_record

from .conftest import CONFIG, sentences, write_model_files

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
        UserError, match=r"was started with another validation corpus, of hash .* new "
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


def test_other_versions_are_told_and_accepted(settings, tmp_path, capsys):
    config, inputs, record = record_of(settings)
    write_json(tmp_path / "run.json", record)
    compare_record(tmp_path, config, inputs)
    assert capsys.readouterr().out == ""
    record["versions"]["jax"] = "0.1"
    write_json(tmp_path / "run.json", record)
    compare_record(tmp_path, config, inputs)
    told = capsys.readouterr().out
    assert f"jax was 0.1 and is {jax.__version__}: numbers may differ in their rounding." in told
