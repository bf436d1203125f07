"""A run whose number of steps changes on the way tells the truth about itself."""

import pytest

from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.runs import list_runs
from clp_jax.train.loop import train_model

from .conftest import on_step, without_times

pytestmark = pytest.mark.usefixtures("compiled_once")


class Killed(BaseException):
    """What no part of the program catches."""


def kill(_):
    raise Killed


def train(settings, steps):
    settings["optimizer"] |= {"schedule": "constant", "warmup_steps": 0}
    settings["train"]["steps"] = steps
    return train_model(RunConfig.from_dict(settings), resume=True)


def told(folder):
    """Of a run: step, steps, tokens and state as listed; steps and tokens of the model card."""
    found = list_runs([folder])
    card = (folder / "model" / "README.md").read_text()
    (training,) = [line for line in card.splitlines() if line.startswith("| training |")]
    [run] = found.runs
    return run.step, run.steps, run.tokens, "finished" in str(found), training


def training(steps):
    return f"| training | {steps} steps of 8 sequences of 16 tokens: {steps * 128} tokens |"


@pytest.mark.slow
def test_an_extended_run(settings, tmp_path):
    for steps in (2, 3):
        summary = train(settings, steps)
        assert (summary.steps, summary.tokens) == (steps, steps * 128)
        assert told(tmp_path / "run") == (steps, steps, steps * 128, True, training(steps))


@pytest.mark.slow
@pytest.mark.parametrize("validate_every", [2, 4])
def test_a_run_that_is_shortened_to_where_it_stood(settings, monkeypatch, tmp_path, validate_every):
    settings["train"] |= {"validate_every": validate_every, "log_every": 4}
    with monkeypatch.context() as patch:
        on_step(patch, 3, kill)
        with pytest.raises(Killed):
            train(settings, 4)
    with pytest.raises(UserError, match=r"is at step 2, beyond train.steps, which is 1: set it"):
        train(settings, 1)
    assert told(tmp_path / "run")[1] == 4
    summary = train(settings, 2)
    assert (summary.steps, summary.tokens) == (2, 256)
    assert [tokens for tokens, _ in summary.curve] == [0, 256]
    assert told(tmp_path / "run") == (2, 2, 256, True, training(2))
    lines = without_times(tmp_path / "run")
    train(settings, 2)
    assert without_times(tmp_path / "run") == lines


def test_a_run_that_was_extended_before_its_settings_were_written_again(settings, tmp_path):
    train_model(RunConfig.from_dict(settings))
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("\n  steps: 4\n", "\n  steps: 2\n"))
    assert told(tmp_path / "run")[:2] == (4, 4)
