import os
import re
from typing import get_args

import pytest

from clp_jax.checkpoint.tensors import FLOATS
from clp_jax.config import MeshSection, RunConfig
from clp_jax.errors import UserError
from clp_jax.faults import RENAMED
from clp_jax.limits import Dtype
from clp_jax.train.run_folder import flat_settings

MINIMAL = """
model: {path: gpt2}
data: {train: corpus}
train: {out: run, steps: 100}
optimizer: {learning_rate: 1e-4}
"""
FROZEN = {"layers": 0, "positions": 0, "final_norm": 0}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def test_heldout_sets_by_name(tmp_path):
    def config(validation):
        return RunConfig.from_dict(
            {
                "model": {"path": "m"},
                "data": {"train": "t", "validation": validation},
                "train": {"out": "r", "steps": 1},
            }
        )

    sets = {"German": "de", "English": "en"}
    assert [*config(sets).data.validation.items()] == [*sets.items()]
    for written in ("de", sets, None):
        (tmp_path / "run.yaml").write_text(config(written).to_yaml())
        assert flat_settings(config(written))["data.validation"] == written
        assert RunConfig.from_yaml(tmp_path / "run.yaml") == config(written)
    for wrong, sentence in (
        ({"de/DE": "a"}, r"data\.validation\.de/DE.*: .de/DE. is not the name of a set: leave out"),
        ({"de": ["a"]}, r"data\.validation\.de: must be text"),
        (["a"], r"data\.validation: must be one folder, or folders by name"),
        ("gs://bucket/a", r"data\.validation: .*gs://bucket/a"),
    ):
        with pytest.raises(UserError, match=sentence):
            config(wrong)


def test_defaults_and_yaml_floats(file):
    config = RunConfig.from_yaml(file)
    assert config.optimizer.learning_rate == 1e-4  # YAML reads 1e-4 as a string
    assert config.mesh.fsdp == -1


def test_flags_replace_the_file(file):
    config = RunConfig.from_yaml(
        file, ["--train.steps", "7", "--mesh.tensor=2", "--data.validation", "held-out"]
    )
    assert (config.train.steps, config.mesh.tensor) == (7, 2)
    assert config.data.validation == {"": "held-out"}


def test_yaml_round_trip(file, tmp_path):
    config = RunConfig.from_yaml(file)
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("train", "paths", "weights"),
    [
        ("corpora/german", ["corpora/german"], None),
        ("[{path: a}, {path: b}]", ["a", "b"], None),
        ("[{path: a, weight: 0.7}, {path: b, weight: 3}]", ["a", "b"], [0.7, 3]),
    ],
)
def test_one_corpus_or_several(file, tmp_path, train, paths, weights):
    config = RunConfig.from_yaml(file, ["--data.train", train])
    assert [corpus.path for corpus in config.data.train] == paths
    assert config.data.weights == weights
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--train.stepz", "7"], "unknown key train.stepz"),
        (["--trane.steps", "7"], "unknown key trane"),
        (["--train.steps", "many"], "train.steps: Input should be a valid integer"),
        (["--train.steps", "0"], "train.steps: Input should be greater than 0"),
        (
            ["--train.gradient_accumulation_steps", "5"],
            "--train.gradient_accumulation_steps: train: batch_size 32 is not a multiple of gradi",
        ),
        (["--optimizer.schedule", "steps"], "optimizer.schedule: .*'cosine'"),
        (["--data.train", "[]"], "data.train: Tuple should have at least 1 item"),
        (["--data.train", "[{path: a, wieght: 1}]"], "unknown key data.train.0.wieght"),
        (["--data.train", "[{path: a, weight: 0}]"], "data.train.0.weight: .*greater than 0"),
        (["--data.train", "[{path: a, weight: inf}]"], "data.train.0.weight: .*finite number"),
        (["--data.train", "[{path: a, weight: .inf}]"], "data.train.0.weight: .*valid number"),
        (
            ["--data.train", "[{path: a, weight: 1}, {path: b}]"],
            "data: give every corpus of train a weight, or none",
        ),
        (["--data.restart_positions", "true"], "data: restart_positions would be ignored"),
        (["--steps", "7"], "--steps is not a configuration key: write --section.key value"),
        (["train.steps", "7"], "train.steps is not a configuration key"),
        (["--train.steps"], "--train.steps needs a value"),
    ],
)
def test_mistakes_are_reported_by_key(file, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        RunConfig.from_yaml(file, flags)


@pytest.mark.parametrize(
    ("section", "key", "values"),
    [
        ("optimizer", "learning_rate", ["nan", "inf", "-1", "0", "1e400", "100"]),
        ("optimizer", "weight_decay", ["nan", "inf", "-0.1"]),
        ("optimizer", "clip_norm", ["nan", "inf", "0"]),
        ("optimizer", "epsilon", ["nan", "inf", "0"]),
        ("optimizer", "beta2", ["nan", "1", "-0.1"]),
        ("optimizer", "min_lr_ratio", ["nan", "2"]),
        ("optimizer", "lr_multipliers", ["{layers: nan}", "{layers: inf}", "{layers: -1}"]),
        ("train", "z_loss", ["nan", "inf", "-1"]),
        ("train", "spike_factor", ["nan", "inf", "-1"]),
        ("train", "watchdog_minutes", ["nan", "inf", "1e300"]),
        ("train", "seed", ["-1", "2147483648", "9" * 5000]),
        ("train", "steps", ["0", "-5", "2147483648", "1.5"]),
        ("train", "batch_size", ["0", "-8", "1000000000"]),
        ("train", "keep_every", ["-1", "1000000000000"]),
        ("data", "sequence_length", ["0", "-1", "1000000000"]),
        ("mesh", "fsdp", ["-2", "1000000000"]),
        ("model", "dropout", ["nan", "1", "-0.1"]),
    ],
)
def test_implausible_numbers(file, section, key, values):
    for value in values:
        with pytest.raises(UserError, match=f"^--{section}.{key}: {section}.{key}"):
            RunConfig.from_yaml(file, [f"--{section}.{key}", value])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"optimizer": {"schedule": "constant", "restarts": 1, "min_lr_ratio": 0}},
            "restarts and min_lr_ratio would be ignored, because schedule is constant: leave them",
        ),
        (
            {"optimizer": {"name": "adafactor", "beta1": 0.5, "mu_dtype": "bfloat16"}},
            "beta1 and mu_dtype would be ignored, because name is adafactor",
        ),
        (
            {"optimizer": {"name": "lion", "epsilon": 0.1}},
            "epsilon would be ignored, because name is lion: leave it out, or change that",
        ),
        (
            {"optimizer": {"lr_multipliers": {"embeddings": 0}, "new_rows_only": True}},
            "new_rows_only would be ignored, because lr_multipliers freeze the embeddings",
        ),
        (
            {"optimizer": {"lr_multipliers": {"embeddings": 0}, "embeddings_only_steps": 5}},
            "embeddings_only_steps would be ignored, because lr_multipliers freeze the embeddings",
        ),
        (
            {"optimizer": {"lr_multipliers": FROZEN, "embeddings_only_steps": 5}},
            "embeddings_only_steps would be ignored, because lr_multipliers freeze all else",
        ),
        (
            {"optimizer": {"lr_multipliers": {"layers": 0}, "layer_decay": 0.9}},
            "layer_decay would be ignored, because lr_multipliers freeze the layers",
        ),
        (
            {"teacher": {"path": "x", "hidden_states": 0, "layer": 3}},
            "teacher: layer would be ignored, because hidden_states is 0",
        ),
        (
            {"teacher": {"layer": 3, "likelihoods": 1}},
            "teacher: layer and likelihoods would be ignored, because path is empty",
        ),
        ({"mesh": {"auto": True, "data": 2}}, "data would be ignored, because auto picks all"),
        (
            {"train": {"out": "run", "steps": 9, "keep_best": 1}},
            "keep_best would be ignored, because data.validation is empty",
        ),
    ],
)
def test_a_key_that_would_be_ignored_is_refused(keys, sentence):
    values = {"model": {"path": "x"}, "data": {"train": "x"}, "train": {"out": "run", "steps": 9}}
    with pytest.raises(UserError, match=sentence):
        RunConfig.from_dict(values | keys)


@pytest.mark.parametrize("word", ["no", "on", "12:00:00", "20241126", "2024-99-99", "1e3", "0x1f"])
def test_a_key_that_is_text_takes_any_word(file, word):
    assert RunConfig.from_yaml(file, ["--data.validation", word]).data.validation == {"": word}


def test_the_default_that_is_printed_is_understood(file):
    printed = re.findall(r"^  --(\S+) \(default (.*)\)$", RunConfig.describe(), re.MULTILINE)
    assert len(printed) > 15
    for name, default in printed:
        section, key = name.split(".")
        found = getattr(getattr(RunConfig.from_yaml(file, [f"--{name}", default]), section), key)
        assert found == RunConfig.model_fields[section].annotation.model_fields[key].default
    RunConfig.from_yaml(file, ["--data.validation", "None"])


@pytest.mark.parametrize(
    "value", ["[", "@home", "%x", "\t", "{layers: 0.1", "*x", "\x00", "--- a\n--- b", "[" * 600]
)
def test_invalid_yaml_in_a_flag_is_reported_with_the_flag(file, value):
    for flag in (["--data.validation", value], [f"--data.validation={value}"]):
        with pytest.raises(UserError, match=r"^--data.validation: .* is not valid YAML") as error:
            RunConfig.from_yaml(file, flag)
        assert len(str(error.value).splitlines()) == 1
        assert len(str(error.value)) < 400


def test_a_fault_is_reported_with_the_file_or_flag_it_came_from(file):
    file.write_text(MINIMAL.replace("steps: 100", "steps: many"))
    with pytest.raises(UserError) as error:
        RunConfig.from_yaml(file, ["--train.seed", "x"])
    assert re.fullmatch(
        rf"{file}: train.steps: [^;]*; --train.seed: train.seed: [^;]*\.", str(error.value)
    )


@pytest.mark.parametrize("text", ["train: {steps: 1}\ntrain: {out: x}", "train: {out: x, out: x}"])
def test_a_key_that_is_given_twice(tmp_path, text):
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(UserError, match=r"twice.yaml is not valid YAML \(\w+ appears twice in li"):
        RunConfig.from_yaml(tmp_path / "twice.yaml")


def test_places_that_hold_no_configuration(tmp_path):
    (tmp_path / "large.yaml").write_text("# " + "x" * (1 << 20))
    os.mkfifo(tmp_path / "pipe.yaml")
    for place, sentence in {
        "foo://x/y.yaml": "cannot be reached",
        "/dev/zero": "is not a file",
        tmp_path: "is not a file",
        tmp_path / "pipe.yaml": "is not a file",
        tmp_path / "large.yaml": "has more than 1,048,576 bytes",
        "": "is not a file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            RunConfig.from_yaml(place)


def test_a_section_without_keys_has_its_defaults(file):
    file.write_text(f"{MINIMAL}mesh:\n")
    assert RunConfig.from_yaml(file, ["--mesh.tensor", "2"]).mesh.tensor == 2


@pytest.mark.parametrize("values", [None, "run.yaml", [], 5, MeshSection()])
def test_values_that_are_not_a_configuration(values):
    with pytest.raises(UserError, match="must be a section with keys, or a RunConfig"):
        RunConfig.from_dict(values)


def test_dtypes_are_those_that_checkpoints_may_have():
    assert {*get_args(Dtype)} == {str(dtype) for dtype in FLOATS}


def test_all_mistakes_are_reported_at_once(tmp_path):
    (tmp_path / "bad.yaml").write_text("model: {pth: x}\ntrain: {out: r}\n")
    with pytest.raises(UserError) as error:
        RunConfig.from_yaml(tmp_path / "bad.yaml")
    for fault in ("model.path is missing", "unknown key model.pth", "data is missing", "steps"):
        assert fault in str(error.value)


def test_files_that_are_not_a_configuration(tmp_path):
    with pytest.raises(UserError, match="is missing: give an existing configuration"):
        RunConfig.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("model: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        RunConfig.from_yaml(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must contain sections with keys"):
        RunConfig.from_yaml(tmp_path / "list.yaml")


def test_every_key_is_described():
    text = RunConfig.describe()
    for section, field in RunConfig.model_fields.items():
        for key, option in field.annotation.model_fields.items():
            assert f"--{section}.{key} " in text
            assert option.description


def test_settings_are_compared_as_json_has_them():
    run = {"model": {"path": "m"}, "data": {"train": "c"}, "train": {"steps": 1, "out": "r"}}
    settings = flat_settings(RunConfig.from_dict(run))
    assert settings["data.train"] == [{"path": "c", "weight": None}]


@pytest.mark.parametrize(
    "old",
    [
        "train.accumulation",
        "optimizer.rates",
        "optimizer.embeddings_first",
        "optimizer.final_ratio",
    ],
)
def test_an_old_name_is_refused_with_the_new_one(old):
    section, key = old.split(".")
    with pytest.raises(UserError, match=f"unknown key {old}, which is now called {RENAMED[key]}"):
        RunConfig.from_dict({section: {key: 1}})
