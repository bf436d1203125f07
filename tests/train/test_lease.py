"""Leases of processes that live, have ended, were killed, or are on another machine."""

import json
import os
import signal
import subprocess
import sys

import pytest

from clp_jax.checkpoint.orbax import latest_step
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.train import lease as module
from clp_jax.train.lease import RunLease
from clp_jax.train.loop import train_model
from clp_jax.train.place import LEASE, RunPlace

from .conftest import on_step

HOLD = """
import sys, time
from clp_jax.train.lease import RunLease
from clp_jax.train.place import RunPlace
with RunLease(RunPlace(sys.argv[1])) as lease:
    lease.take()
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "PATIENCE", 0.5)


@pytest.fixture
def other(tmp_path):
    """A process that holds the lease of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def a_lease(folder):
    return RunLease(RunPlace(str(folder)))


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
    assert "has ended, so this one takes over." in told
    assert not (tmp_path / LEASE).exists()


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_number_that_another_process_got_is_not_the_holder(tmp_path, other):
    change(tmp_path / LEASE, started="1")
    with a_lease(tmp_path) as lease:
        lease.take()


def test_a_live_process_on_another_machine_is_seen_by_its_signs_of_life(tmp_path, hurry):
    with a_lease(tmp_path) as theirs, a_lease(tmp_path) as ours:
        theirs._mine["machine"] = "another"
        theirs.take()
        with pytest.raises(UserError, match="is being trained by process"):
            ours.take()
        theirs.check()


@pytest.mark.parametrize(
    ("age", "told"), [(0, "gave no sign of life for 0 seconds"), (1e4, "long ago")]
)
def test_a_dead_process_on_another_machine_gives_none(tmp_path, other, hurry, age, told, capsys):
    alive = json.loads((tmp_path / LEASE).read_text())["alive"] - age
    change(tmp_path / LEASE, machine="another", host="far", alive=alive)
    with a_lease(tmp_path) as lease:
        lease.take()
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "\0" * 100, '{"nonce": 1}'])
def test_a_damaged_lease_is_nobodys(tmp_path, content):
    (tmp_path / LEASE).write_text(content)
    with a_lease(tmp_path) as lease:
        lease.take()
        lease.check()


def test_who_has_lost_it_neither_lives_on_nor_removes_it(tmp_path, hurry):
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
