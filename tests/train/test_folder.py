import copy

import pytest

from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.train import folder
from clp_jax.train.place import RunPlace


def find_run(config, *, resume):
    return folder.find_run(config, RunPlace(config.train.out).folder, resume=resume)


def create_run(config, model):
    folder.create_run(config, RunPlace(config.train.out), model, "", {})


@pytest.fixture
def started(settings, inputs):
    create_run(RunConfig.from_dict(settings), inputs / "model")
    return settings


def changed(settings, key, value):
    other = copy.deepcopy(settings)
    section, name = key.split(".")
    other[section][name] = value
    return RunConfig.from_dict(other)


def test_nothing_there_is_a_new_run(settings):
    assert find_run(RunConfig.from_dict(settings), resume=True) is False


def test_folder_is_continued_only_when_told(started):
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
