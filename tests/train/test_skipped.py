"""Steps that change nothing, by themselves and in runs whose data hold what spoils a step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.checkpoint.orbax import latest_step
from clp_jax.config import RunConfig
from clp_jax.data.corpus.batches import TrainingBatches
from clp_jax.errors import UserError
from clp_jax.loss import next_token_loss
from clp_jax.mesh import single_device_mesh
from clp_jax.train import inputs as train_inputs
from clp_jax.train import loop, step
from clp_jax.train.anomalies import Skipped, SkippedSteps, TooManySkipped
from clp_jax.train.loop import train_model

from .conftest import leaves, on_step, without_times

NOTHING, SPIKE = 300, 301
"""Ids that no text has: a batch with the first has no finite loss, one with the second a loss and
gradients that are a hundred times as large."""
BATCH = 8


def count(verdicts, limit, in_a_row=0):
    """How many were skipped in a row in the end and in all, or the step that was one too many."""
    steps = SkippedSteps(limit, Skipped(in_a_row, 10 + in_a_row))
    try:
        for number, skipped in enumerate(verdicts, start=1):
            steps.add(number, jnp.float32(skipped))
        settled = steps.settled()
        return settled.in_a_row, settled.total - 10
    except TooManySkipped as error:
        return f"step {error.step}"


def test_skipped_steps_are_too_many_only_in_a_row():
    assert count([], limit=3, in_a_row=2) == (2, 2)
    assert count([1, 1, 0, 1, 1], limit=3) == (2, 4)
    assert count([1, 1, 0, 1, 1, 1, 0], limit=3) == "step 6"
    assert count([1, 0], limit=3, in_a_row=2) == "step 1"
    assert count([0, 1, 1], limit=3, in_a_row=2) == (2, 4)


@pytest.fixture
def long_run(settings, monkeypatch):
    """28 steps with a checkpoint after every fourth, and a loss that heeds the ids above."""

    def loss(hidden, embedding, targets, mask, **arguments):
        total, tokens = next_token_loss(hidden, embedding, targets, mask, **arguments)
        factor = jnp.where((targets == SPIKE).any(), 100.0, 1.0)
        return total * jnp.where((targets == NOTHING).any(), jnp.nan, factor), tokens

    monkeypatch.setattr(step, "next_token_loss", loss)
    monkeypatch.setattr(train_inputs, "run_mesh", lambda *_: single_device_mesh())
    settings["train"] |= {"steps": 28, "checkpoint_every": 4, "validate_every": 14}
    settings["train"] |= {"dtype": "float32", "max_skipped": 2, "keep_checkpoints": 9}
    return settings


def run(settings, folder, **changes):
    train = settings["train"] | {"out": str(folder)} | changes
    return train_model(RunConfig.from_dict(settings | {"train": train}), resume=True).folder


def spoil(monkeypatch, id, *batches):
    """Put an id into the batches with these numbers, from 1, wherever they come in the run."""
    read = TrainingBatches._batch

    def read_spoiled(self, first):
        batch = read(self, first)
        if first // BATCH + 1 in batches:
            batch["tokens"][:, 1] = id
        return batch

    monkeypatch.setattr(TrainingBatches, "_batch", read_spoiled)


def leave_out(monkeypatch, first_left_out, batches):
    read = TrainingBatches._batch

    def read_others(self, first):
        skipped = batches * BATCH if first // BATCH + 1 >= first_left_out else 0
        return read(self, first + skipped)

    monkeypatch.setattr(TrainingBatches, "_batch", read_others)


def assert_same_runs(ours, theirs):
    assert without_times(ours) == without_times(theirs)
    for one, other in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_batch_without_a_loss_and_a_spike_are_skipped(long_run, monkeypatch, tmp_path):
    spoil(monkeypatch, NOTHING, 5)
    spoil(monkeypatch, SPIKE, 26)
    verdicts = []
    monkeypatch.setattr(
        loop.SkippedSteps,
        "add",
        lambda self, number, skipped: verdicts.append((number, float(skipped))),
    )
    run(long_run, tmp_path / "run")
    assert [number for number, skipped in verdicts if skipped] == [5, 26]
    assert len(verdicts) == 28
    assert all(np.isfinite(leaf).all() for leaf in leaves(tmp_path / "run"))


def test_too_many_end_the_run(long_run, monkeypatch, tmp_path):
    spoil(monkeypatch, NOTHING, 7, 8)
    with pytest.raises(UserError, match=r"^2 steps in a row, up to step 8, changed nothing, .*: l"):
        run(long_run, tmp_path / "run")
    assert latest_step(tmp_path / "run") == 4


class Killed(BaseException):
    """What no part of the program catches."""


def kill(batch):
    raise Killed


@pytest.mark.slow
def test_too_many_are_skipped_by_going_back(long_run, monkeypatch, tmp_path, capsys):
    long_run["train"]["on_skipped"] = "rollback"
    with monkeypatch.context() as patch:
        leave_out(patch, 5, 4)
        run(long_run, tmp_path / "whole")
    capsys.readouterr()

    spoil(monkeypatch, NOTHING, 7, 8)
    run(long_run, tmp_path / "run")
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "a row" in line]
    assert told.endswith("infinite or a spike: back to step 4, skipping their data.")
    assert_same_runs(tmp_path / "run", tmp_path / "whole")

    for index in (6, 5, 9, 21):  # Before it goes back, after that, and twice later.
        with monkeypatch.context() as patch:
            on_step(patch, index, kill)
            with pytest.raises(Killed):
                run(long_run, tmp_path / "killed")
    run(long_run, tmp_path / "killed")
    assert_same_runs(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_going_back_needs_no_second_state_and_skips_a_damaged_checkpoint(
    long_run, monkeypatch, tmp_path, capsys
):
    long_run["train"] |= {"steps": 12, "validate_every": 12, "on_skipped": "rollback"}
    spoil(monkeypatch, NOTHING, 11, 12)
    restore, sizes = loop.restore_newest, []

    def held():
        return sum(array.nbytes for array in jax.live_arrays())

    def restore_the_one_before(folder, params, optimizer):
        sizes.append(held())
        if latest_step(folder):
            file = next(Path(folder, "checkpoints", "8").rglob("manifest.ocdbt"))
            file.write_bytes(file.read_bytes()[:-1])
        return restore(folder, params, optimizer)

    monkeypatch.setattr(loop, "restore_newest", restore_the_one_before)
    folder = run(long_run, tmp_path / "run")
    assert "back to step 4, skipping their data" in capsys.readouterr().out
    assert latest_step(folder) == 12
    state = 3 * sum(leaf.nbytes for leaf in leaves(folder))
    assert sizes[1] - sizes[0] < state / 4


@pytest.mark.slow
def test_a_row_of_skipped_steps_continues_after_a_stop(long_run, monkeypatch, tmp_path):
    spoil(monkeypatch, NOTHING, 8, 9)
    with monkeypatch.context() as patch:
        on_step(patch, 8, kill)
        with pytest.raises(Killed):
            run(long_run, tmp_path / "run")
    assert latest_step(tmp_path / "run") == 8
    with pytest.raises(UserError, match="up to step 9, changed nothing"):
        run(long_run, tmp_path / "run")


@pytest.mark.slow
def test_going_back_ends_when_it_does_not_help(long_run, monkeypatch, tmp_path):
    spoil(monkeypatch, NOTHING, *range(6, 99))
    with pytest.raises(UserError, match="and 3 returns to step 4 did not help: lower"):
        run(long_run, tmp_path / "run", on_skipped="rollback")
