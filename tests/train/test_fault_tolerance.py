"""Leases of processes that live, have ended, were killed, or are on another machine."""

import json
import os
import shlex
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.orbax import RunCheckpoints, latest_step
from clp_jax.cli import main
from clp_jax.config import RunConfig
from clp_jax.errors import RunStopped, UserError
from clp_jax.train import fault_tolerance as module
from clp_jax.train.fault_tolerance import EXIT_STATUS, RunLease, StopRequests, Watchdog
from clp_jax.train.loop import train_model
from clp_jax.train.run_folder import LEASE, RunStorage

from ..marks import slow
from ..started import Started
from .conftest import leaves, on_step, without_times

pytestmark = pytest.mark.usefixtures("compiled_once")


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


@pytest.mark.parametrize("number", [signal.SIGTERM, slow(signal.SIGINT)])
def test_a_signal_saves_the_step_and_nothing_is_lost(stopped, number, monkeypatch, tmp_path):
    config = RunConfig.from_dict(stopped(number))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(RunStopped, match=r"run was asked to stop and is saved at step 3\.$"):
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


def test_the_command_line_says_how_to_resume(stopped, monkeypatch, tmp_path, capsys):
    settings = stopped(signal.SIGTERM)
    (tmp_path / "run.yaml").write_text(RunConfig.from_dict(settings).to_yaml())
    main(["train", "--config", str(tmp_path / "run.yaml"), "--train.log_every", "2"])
    last = capsys.readouterr().out.splitlines()[-1]
    told, command = last.split(" Resume with: clp-jax ")
    assert told == f"clp-jax: {tmp_path / 'run'} was asked to stop and is saved at step 3."

    monkeypatch.undo()
    main(shlex.split(command))
    assert latest_step(tmp_path / "run") == 4
    assert load_model(tmp_path / "run")


def test_a_signal_in_the_last_step_ends_the_run_as_usual(settings, monkeypatch):
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


STALLED_READER = """
import sys, time
from clp_jax.data.corpus.batches import TrainingBatches
from clp_jax.cli import main

read = TrainingBatches._batch
def stall(self, first):
    if first == 3 * 8:
        time.sleep(3600)
    return read(self, first)
TrainingBatches._batch = stall
main(["train", "--config", sys.argv[1]])
"""


@pytest.mark.slow
def test_a_stalled_reader_ends_the_run_with_its_place(settings, tmp_path):
    settings["mesh"] = {"data": 1, "fsdp": 1}
    settings["data"]["validation"] = None
    settings["train"] |= {"watchdog_minutes": 0.2, "dtype": "float32", "checkpoint_every": 1}
    (tmp_path / "run.yaml").write_text(RunConfig.from_dict(settings).to_yaml())
    status, told = Started(STALLED_READER, str(tmp_path / "run.yaml")).end(timeout=120)
    assert status == EXIT_STATUS, told
    assert "in stall" in told, "the stack of the thread that reads"
    last = told.splitlines()[-1]
    assert last.startswith("clp-jax: the wait for the batch after step 3 has taken more than 0.2 ")
    assert last.endswith("with --resume to continue from the newest checkpoint.")
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()


@pytest.fixture
def ends(monkeypatch):
    """What a watchdog would have ended."""
    ended = []
    monkeypatch.setattr(Watchdog, "_end", lambda self, stage: ended.append(stage))
    return ended


def test_stages_that_take_their_time_but_end_are_left_alone(ends):
    with Watchdog(1 / 60) as watchdog:
        for step in range(8):
            watchdog.stage(f"step {step}")
            time.sleep(0.2)
    time.sleep(1.2)
    assert ends == []


@pytest.mark.parametrize(("minutes", "ended"), [(0.1 / 60, True), (0.0, False)])
def test_a_stage_without_end_is_ended_unless_nothing_is_watched(ends, minutes, ended):
    with Watchdog(minutes) as watchdog:
        watchdog.stage("the save")
        time.sleep(0.4)
    assert ends[:1] == ["the save"] * ended


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "PATIENCE", 0.5)


def a_lease(folder):
    return RunLease(RunStorage(str(folder)))


@pytest.fixture
def other(tmp_path):
    """A process in whose name the lease of the folder is held."""
    process = subprocess.Popen(["sleep", "600"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process.pid)
        lease = a_lease(tmp_path)
    lease.take()
    yield process
    process.kill()
    process.wait()
    lease.__exit__()


def test_a_run_belongs_to_one_process_until_it_is_dead(tmp_path, other, capsys):
    for _ in range(2):
        with (
            pytest.raises(UserError, match=rf"is being trained by process {other.pid} on .*wait"),
            a_lease(tmp_path) as lease,
        ):
            lease.take()
    other.send_signal(signal.SIGKILL)
    while not os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT):
        pass  # It is a zombie now: its number is still there.
    with a_lease(tmp_path) as lease:
        lease.take()
        lease.check()
    told = capsys.readouterr().out
    assert f"process {other.pid} on " in told
    assert "has ended: this one takes over." in told
    assert not (tmp_path / LEASE).exists()


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_reused_process_id_is_not_the_holder(tmp_path, other):
    change(tmp_path / LEASE, started="1")
    with a_lease(tmp_path) as lease:
        lease.take()


def test_a_live_process_on_another_machine_is_seen_by_its_heartbeat(tmp_path, hurry):
    with a_lease(tmp_path) as theirs, a_lease(tmp_path) as ours:
        theirs._mine["machine"] = "another"
        theirs.take()
        with pytest.raises(UserError, match="is being trained by process"):
            ours.take()
        theirs.check()


@pytest.mark.parametrize(
    ("age", "told"), [(0, "sent no heartbeat for 0 seconds"), (1e4, "long ago")]
)
def test_a_dead_process_on_another_machine_has_no_heartbeat(
    tmp_path, other, hurry, age, told, capsys
):
    alive = json.loads((tmp_path / LEASE).read_text())["alive"] - age
    change(tmp_path / LEASE, machine="another", host="far", alive=alive)
    with a_lease(tmp_path) as lease:
        lease.take()
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "\0" * 100, '{"nonce": 1}'])
def test_a_damaged_lease_has_no_holder(tmp_path, content):
    (tmp_path / LEASE).write_text(content)
    with a_lease(tmp_path) as lease:
        lease.take()
        lease.check()


def test_a_lost_lease_is_neither_renewed_nor_removed(tmp_path, hurry):
    with a_lease(tmp_path) as old, a_lease(tmp_path) as new:
        old.take()
        (tmp_path / LEASE).unlink()
        with pytest.raises(UserError, match="its lease was removed"):
            old.check()
        new.take()
        with pytest.raises(UserError, match=r"process \d+ on .* took it over"):
            old.check()
        old.__exit__()
        new.check()


def test_a_run_that_lost_its_lease_saves_nothing(settings, monkeypatch, tmp_path):
    def requeue(_):
        file = tmp_path / "run" / LEASE
        change(file, nonce="of the other", process=7, host="far")

    on_step(monkeypatch, 3, requeue)
    told = r"process 7 on far took it over, so this process stops and saves nothing more"
    with pytest.raises(UserError, match=told):
        train_model(RunConfig.from_dict(settings))
    assert latest_step(tmp_path / "run") == 2
    assert json.loads((tmp_path / "run" / LEASE).read_text())["nonce"] == "of the other"


def test_a_second_resume_is_refused_and_harms_nothing(settings, monkeypatch, tmp_path):
    refused = []

    def resume(_):
        with pytest.raises(UserError, match="is being trained by process"):
            train_model(RunConfig.from_dict(settings), resume=True)
        refused.append(True)

    on_step(monkeypatch, 2, resume)
    assert train_model(RunConfig.from_dict(settings)).steps == 4
    assert refused == [True]
    assert latest_step(tmp_path / "run") == 4
