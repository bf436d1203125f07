import pytest

from clp_jax.config import RunConfig, TransferConfig
from clp_jax.errors import UserError
from clp_jax.train.folder import flat_settings

MINIMAL = """
model: {path: gpt2}
data: {train: corpus}
train: {out: run, steps: 100}
optimizer: {learning_rate: 1e-4}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def test_defaults_and_yaml_floats(file):
    config = RunConfig.from_yaml(file)
    assert config.optimizer.learning_rate == 1e-4  # YAML reads 1e-4 as a string
    assert config.mesh.fsdp == -1


def test_flags_replace_the_file(file):
    config = RunConfig.from_yaml(
        file, ["--train.steps", "7", "--mesh.tensor=2", "--data.validation", "held-out"]
    )
    assert (config.train.steps, config.mesh.tensor) == (7, 2)
    assert config.data.validation == "held-out"


def test_yaml_there_and_back(file, tmp_path):
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
        (["--train.accumulation", "5"], "batch_size 32 is not a multiple of accumulation 5"),
        (["--optimizer.schedule", "steps"], "optimizer.schedule: .*'cosine'"),
        (["--data.train", "[]"], "data.train: Tuple should have at least 1 item"),
        (["--data.train", "[{path: a, wieght: 1}]"], "unknown key data.train.0.wieght"),
        (["--data.train", "[{path: a, weight: 0}]"], "data.train.0.weight: .*greater than 0"),
        (["--data.train", "[{path: a, weight: .inf}]"], "data.train.0.weight: .*finite number"),
        (
            ["--data.train", "[{path: a, weight: 1}, {path: b}]"],
            "data: give every corpus of train a weight, or none",
        ),
        (["--data.restart_positions", "true"], "data: restart_positions needs document_mask"),
        (["--steps", "7"], "--steps is not understood: write --section.key value"),
        (["train.steps", "7"], "train.steps is not understood"),
        (["--train.steps"], "--train.steps needs a value"),
    ],
)
def test_mistakes_are_told_by_key(file, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        RunConfig.from_yaml(file, flags)


def test_all_mistakes_are_told_at_once(tmp_path):
    (tmp_path / "bad.yaml").write_text("model: {pth: x}\ntrain: {out: r}\n")
    with pytest.raises(UserError) as error:
        RunConfig.from_yaml(tmp_path / "bad.yaml")
    for fault in ("model.path is missing", "unknown key model.pth", "data is missing", "steps"):
        assert fault in str(error.value)


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(UserError, match="is missing: name an existing configuration"):
        RunConfig.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("model: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        RunConfig.from_yaml(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must hold sections with keys"):
        RunConfig.from_yaml(tmp_path / "list.yaml")


def test_every_key_is_described():
    text = RunConfig.describe()
    for section, field in RunConfig.model_fields.items():
        for key, knob in field.annotation.model_fields.items():
            assert f"--{section}.{key} " in text
            assert knob.description


def test_a_transfer_as_it_is_by_default():
    config = TransferConfig()
    assert config.method == "auto"
    assert (config.copy_share, config.match_norms, config.seed) == (None, None, 0)
    assert config.given == {}
    assert TransferConfig(method="clp", copy_share=0, match_norms=False).given == {
        "method": "clp", "copy_share": 0, "match_norms": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "clp", "strict": True},
        {"method": "ridge", "copy_share": 0.5, "calibrate": True, "data": ["x"]},
        {"method": "clp", "extend": True, "copy_share": 1},
        {"extend": True, "data": ["x"]},
        {"source_vectors": "a", "target_vectors": "b", "dictionary": "c"},
    ],
)
def test_options_of_a_transfer_that_fit_together(keys):
    config = TransferConfig.from_dict(keys)
    assert TransferConfig.from_dict(config.given) == config


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"copy_share": 1}, "copy_share is chosen by the method auto: name another method"),
        ({"match_norms": False}, "match_norms is chosen by the method auto"),
        ({"calibrate": True, "data": ["x"]}, "calibrate is chosen by the method auto"),
        ({"method": "ridge", "strict": True}, "strict belongs to the method clp, not to ridge"),
        ({"method": "ridge", "calibrate": True}, "calibrate needs data"),
        ({"method": "ridge", "copy_share": 1.5}, "copy_share: .*less than or equal to 1"),
        ({"method": "ridge", "extend": True, "copy_share": 0.5}, "extend keeps the source's rows"),
        (
            {"method": "ridge", "extend": True, "calibrate": True, "data": ["x"]},
            "extend keeps the source's rows",
        ),
        ({"source_vectors": "a"}, "source_vectors and target_vectors belong together"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of: .*greater than 0"),
        ({"metod": "clp"}, "unknown key metod"),
    ],
)
def test_options_of_a_transfer_that_do_not(keys, sentence):
    with pytest.raises(UserError, match=f"transfer: .*{sentence}"):
        TransferConfig.from_dict(keys, origin="transfer")


def test_settings_are_compared_as_json_has_them():
    assert TransferConfig(data=("a", "b")).given == {"data": ["a", "b"]}
    run = {"model": {"path": "m"}, "data": {"train": "c"}, "train": {"steps": 1, "out": "r"}}
    settings = flat_settings(RunConfig.from_dict(run))
    assert settings["data.train"] == [{"path": "c", "weight": None}]
