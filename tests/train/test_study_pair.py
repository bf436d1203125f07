"""The study of a pair of models, with tiny ones."""

import json

import pytest
import yaml

from clp_jax.checkpoint.hf import save_model
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.transfer.config import TransferConfig
from tests.conftest import REPOSITORY

from .conftest import CONFIG, sentences, write_model_files

FROZEN = {"lr_multipliers": {"layers": 0, "positions": 0, "final_norm": 0}}


@pytest.fixture
def study_pair(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import study_pair

    return study_pair


@pytest.fixture
def options(tmp_path):
    """A configuration: a source, a helper that shares its bytes, and text of two languages."""
    english = [f"The cat sees {i} dogs and the mouse hears a cow." for i in range(60)]
    shape = CONFIG | {"n_positions": 32, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    for seed, (name, texts) in enumerate({"source": english, "helper": None}.items()):
        files = tmp_path / f"{name}-files"
        files.mkdir()
        write_model_files(files, shape, texts)
        model = initialize(read_decoder_config(shape), seed=seed, mesh=single_device_mesh())
        save_model(model, tmp_path / name, origin=files)
    for name, texts in {
        "de": [*sentences(300, 0)],
        "held": [*sentences(40, 900)],
        "en": english,
    }.items():
        lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    teacher = {"path": str(tmp_path / "source"), "hidden_states": 1.0}
    return {
        "source": str(tmp_path / "source"),
        "helper": str(tmp_path / "helper"),
        "text": [str(tmp_path / "de.jsonl")],
        "heldout": {"German": str(tmp_path / "held.jsonl"), "English": str(tmp_path / "en.jsonl")},
        "heldout_characters": 1000,
        "sample_characters": 500,
        "train_characters": 4000,
        "arms": {"mean": {"method": "mean"}, "random": {"method": "random"}},
        "phases": {
            "mean": [{}],
            "mean + polished": [
                {"optimizer": FROZEN, "teacher": teacher, "train": {"steps": 2}},
                {"train": {"steps": 2}},
            ],
            "mean + 25% English": [{}],
            "own tokenizer": [{}],
        },
        "replay_text": [str(tmp_path / "en.jsonl")],
        "replay": {"mean + 25% English": 0.25},
        "run": {
            "data": {"sequence_length": 16},
            "train": {"steps": 4, "batch_size": 8, "validate_every": 2, "dtype": "float32"},
        },
    }


@pytest.mark.slow
def test_a_study(study_pair, options, tmp_path, monkeypatch):
    config, out = tmp_path / "pair.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(options, sort_keys=False))
    monkeypatch.setattr("sys.argv", ["study_pair.py", str(config), "--out", str(out)])
    study_pair.main()
    found = json.loads((out / "study.json").read_text())
    assert list(found["before"]) == ["own tokenizer", "mean", "random"]
    assert found["config"]["seeds"] == [0]
    assert [found["recipes"][arm]["method"] for arm in ("mean", "random")] == ["mean", "random"]
    texts = {f"text/{name}.jsonl" for name in ("train", "replay", "sample", "German", "English")}
    models = {f"{options[name]}/model.safetensors" for name in ("source", "helper")}
    assert found["sha256"].keys() == texts | models | {f"{options['helper']}/tokenizer.json"}
    for arm, [run] in found["after"].items():
        curve = run["curve"]
        assert [point["tokens"] for point in curve] == [0, 2 * 8 * 16, 4 * 8 * 16]
        before = found["before"][study_pair.transferred(arm)]["German"]
        assert curve[0]["bits_per_byte"] == pytest.approx(before, rel=1e-4)
        assert run["end"].keys() == {"German", "English"}
    plain, polished = (found["after"][arm][0]["curve"] for arm in ("mean", "mean + polished"))
    # The first phase also reads the text, twice as many tokens of it, with the source: 5/3, less
    # what the frozen layers save.
    assert 1 < polished[1]["flops"] / plain[1]["flops"] < 5 / 3
    assert polished[2]["flops"] - polished[1]["flops"] == pytest.approx(plain[1]["flops"])
    replayed = found["after"]["mean + 25% English"][0]
    ends = replayed["end"], found["after"]["mean"][0]["end"]
    assert ends[0]["English"] < ends[1]["English"]
    assert "mean + polished" in (out / "tables.md").read_text()
    written = (out / "arms" / "mean" / "after-0.json").stat().st_mtime_ns
    study_pair.main()
    assert (out / "arms" / "mean" / "after-0.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "configs" / "study").glob("*.yaml")), ids=lambda file: file.stem
)
def test_each_study_names_methods_and_runs_that_exist(study_pair, file):
    config = study_pair.StudyConfig.from_yaml(file)
    for options in config.arms.values():
        TransferConfig.from_dict({"data": ["d"], **options})
    for phase in (phase for phases in config.phases.values() for phase in phases):
        sections = {
            name: config.run.get(name, {}) | phase.get(name, {}) for name in {*config.run, *phase}
        }
        sections["model"] = {"path": "m"}
        sections["data"] |= {"train": "t", "validation": "v"}
        sections["train"] |= {"out": "o"}
        RunConfig.from_dict(sections)


def test_a_wrong_study_is_refused(study_pair, options, tmp_path):
    config = tmp_path / "pair.yaml"
    for change, sentence in (
        ({"phases": {"meen": [{}]}}, "there is no arm meen"),
        ({"replay": {"random": 0.1}}, "replay: there is no phases of random"),
        ({"replay_text": []}, "replay: there is no replay_text"),
        ({"run": {}}, "run.train has no batch_size, steps, validate_every"),
    ):
        config.write_text(yaml.safe_dump(options | change))
        with pytest.raises(UserError, match=sentence):
            study_pair.StudyConfig.from_yaml(config)
