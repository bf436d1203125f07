"""Weights & Biases by a stand-in, since the package is not among the project's own."""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.train.loop import train_model
from clp_jax.train.metrics import read_metrics
from clp_jax.train.trackers import EventFile, Profile

from .conftest import events


def test_what_is_finite_is_kept_behind_a_new_start(tmp_path):
    file = EventFile(tmp_path / "tensorboard", start=4)
    file.write(
        5, {"train/loss": 2.5, "train/perplexity": math.inf, "train/gradient_norm": math.nan}
    )
    file.write(6, {"train/loss": 2.25})
    file.close()
    version, start, *lines = events(next((tmp_path / "tensorboard").glob("*.tfevents.*")))
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    told = [
        (line.step, value.tag, value.simple_value) for line in lines for value in line.summary.value
    ]
    assert told == [(5, "train/loss", 2.5), (6, "train/loss", 2.25)]


def test_it_is_flushed_from_time_to_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    file = EventFile(tmp_path, start=0)
    [written] = tmp_path.iterdir()
    before = written.stat().st_size
    file.write(1, {"train/loss": 2.5})
    assert written.stat().st_size == before
    now[0] = 31.0
    file.write(2, {"train/loss": 2.5})
    assert [event.step for event in events(written)][-2:] == [1, 2]


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
def test_all_lines_are_logged_and_a_resumed_run_continues_the_same_one(settings, sessions):
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


def test_a_missing_package_is_reported_before_anything_is_written(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("clp_jax.train.trackers.find_spec", lambda name: None)
    settings["train"]["wandb"] = "german"
    with pytest.raises(UserError, match="pip install wandb"):
        train_model(RunConfig.from_dict(settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_trace_of_a_few_steps_is_written(settings, tmp_path, capsys):
    train_model(RunConfig.from_dict(settings), profile=True)
    traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 1000
    assert "Steps 2 to 4 are traced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("start", "steps", "traced"),
    [(0, 100, (11, 13)), (50, 100, (61, 63)), (0, 5, (3, 5)), (98, 100, (99, 100))],
)
def test_steps_that_are_traced(monkeypatch, tmp_path, start, steps, traced):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    profile = Profile(tmp_path, start, steps)
    found = []
    for step in range(start + 1, steps + 1):
        profile.before(step)
        if calls == ["start"]:
            found.append(step)
        profile.after(step, ())
    assert (found[0], found[-1]) == traced
    assert calls == ["start", "stop"]
