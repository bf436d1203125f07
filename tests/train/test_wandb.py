"""Weights & Biases by a stand-in, since the package is not among the project's own."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.train.loop import train_model
from clp_jax.train.metrics import read_metrics


@pytest.fixture
def sessions(monkeypatch):
    """What each session was begun with and told."""
    begun = []

    def init(**arguments):
        lines = []
        begun.append((arguments, lines))
        return SimpleNamespace(
            id=arguments["id"] or "abc",
            log=lines.append,
            define_metric=lambda *_, **__: None,
            finish=lambda: lines.append("finished"),
        )

    module = ModuleType("wandb")
    module.init = init
    module.__spec__ = SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    return begun


@pytest.mark.slow
def test_all_lines_go_there_and_a_resumed_run_goes_on_with_the_same_one(settings, sessions):
    settings["train"]["wandb"] = "german"
    settings["optimizer"]["schedule"] = "constant"
    folder = train_model(RunConfig.from_dict(settings)).folder
    settings["train"]["steps"] = 6
    train_model(RunConfig.from_dict(settings), resume=True)
    (first, lines), (second, more) = sessions
    assert (first["project"], first["name"], first["id"]) == ("german", "run", None)
    assert first["config"]["train"]["batch_size"] == 8
    assert (second["id"], second["resume"]) == ("abc", "allow")
    assert lines[-1] == more[-1] == "finished"
    assert lines[:-1] + more[:-1] == read_metrics(folder)


def test_a_missing_package_is_told_before_anything_is_written(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("clp_jax.train.wandb.find_spec", lambda name: None)
    settings["train"]["wandb"] = "german"
    with pytest.raises(UserError, match="pip install wandb"):
        train_model(RunConfig.from_dict(settings))
    assert not (tmp_path / "run").exists()
