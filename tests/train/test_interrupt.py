import os
import shlex
import signal
import threading

import numpy as np
import pytest

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.orbax import RunCheckpoints, latest_step
from clp_jax.cli import main
from clp_jax.config import RunConfig
from clp_jax.errors import RunStopped
from clp_jax.train.interrupt import StopRequests
from clp_jax.train.loop import train_model

from .conftest import leaves, on_step, without_times


@pytest.fixture
def stopped(settings, monkeypatch):
    """Settings of a run that gets the signal in its third step of four, and twice in its save."""
    settings["train"]["checkpoint_every"] = 4

    def stop(number):
        def save_disturbed(checkpoints, *state):
            os.kill(os.getpid(), signal.SIGTERM)
            save(checkpoints, *state)
            os.kill(os.getpid(), signal.SIGINT)

        save = RunCheckpoints.save
        monkeypatch.setattr(RunCheckpoints, "save", save_disturbed)
        on_step(monkeypatch, 2, lambda batch: os.kill(os.getpid(), number))
        return settings

    return stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_and_nothing_is_lost(stopped, number, monkeypatch, tmp_path):
    config = RunConfig.from_dict(stopped(number))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(RunStopped, match=r"run was told to stop and is saved at step 3\.$"):
        train_model(config)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert latest_step(tmp_path / "run") == 3

    monkeypatch.undo()
    train_model(config, resume=True)
    whole = config.train.model_copy(update={"out": str(tmp_path / "whole")})
    train_model(config.model_copy(update={"train": whole}))
    assert without_times(tmp_path / "run") == without_times(tmp_path / "whole")
    for ours, theirs in zip(leaves(tmp_path / "run"), leaves(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_command_line_tells_how_to_go_on(stopped, monkeypatch, tmp_path, capsys):
    settings = stopped(signal.SIGTERM)
    (tmp_path / "run.yaml").write_text(RunConfig.from_dict(settings).to_yaml())
    main(["train", "--config", str(tmp_path / "run.yaml"), "--train.log_every", "2"])
    last = capsys.readouterr().out.splitlines()[-1]
    told, command = last.split(" Go on with: clp-jax ")
    assert told == f"clp-jax: {tmp_path / 'run'} was told to stop and is saved at step 3."

    monkeypatch.undo()
    main(shlex.split(command))
    assert latest_step(tmp_path / "run") == 4
    assert load_model(tmp_path / "run")


def test_a_signal_in_the_last_step_ends_the_run_as_ever(settings, monkeypatch):
    on_step(monkeypatch, 3, lambda batch: os.kill(os.getpid(), signal.SIGTERM))
    assert train_model(RunConfig.from_dict(settings)).steps == 4


def test_another_thread_than_the_main_one_takes_no_signals():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter():
        with StopRequests() as requests:
            seen.extend([requests.reached(1), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False, before]
