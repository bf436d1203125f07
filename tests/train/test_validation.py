"""Early stopping: when a run ends, and which checkpoint it keeps."""

import math

import jax.numpy as jnp
import pytest

from clp_jax.checkpoint.card import CARD
from clp_jax.checkpoint.orbax import latest_step
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.evaluate.figures import Perplexity
from clp_jax.train import loop
from clp_jax.train.loop import train_model
from clp_jax.train.metrics import read_metrics
from clp_jax.train.validation import best_step, is_over, out_of_patience

METRICS = ("loss", "learning_rate", "gradient_norm", "skipped", "spike", "tokens")


def test_patience_counts_measurements_since_the_lowest_loss():
    losses = {0: 1.0, 2: 3.0, 4: 2.0, 6: math.nan, 8: 2.0}
    assert best_step(losses) == 4, "the start does not count"
    assert best_step({0: 1.0, 2: math.nan}) is None
    assert not out_of_patience(losses, 0)
    assert out_of_patience(losses, 2)
    assert not out_of_patience(losses, 3)


@pytest.mark.parametrize(
    ("patience", "step", "losses", "over"),
    [
        (0, 8, {8: 1.0}, True),
        (0, 8, {6: 1.0}, False),
        (0, 6, {8: 1.0}, False),
        (1, 2, {2: 1.0, 4: 2.0}, True),
        (2, 2, {2: 1.0, 4: 2.0}, False),
        (9, 2, {2: 1.0, 8: 2.0}, True),
        (9, 4, {2: 2.0, 8: 1.0}, False),  # Killed before the last checkpoint.
    ],
)
def test_a_run_is_over_when_its_best_state_is_saved(settings, patience, step, losses, over):
    settings["train"] |= {"steps": 8, "patience": patience}
    assert is_over(step, losses, RunConfig.from_dict(settings)) is over


def test_a_run_stops_early_and_keeps_the_best_checkpoint(settings, tmp_path, monkeypatch):
    losses = iter([1.0, 4.0, 2.0, 3.0, 2.5])

    def measured(*_, **__):
        return Perplexity(
            nll=next(losses), tokens=1, words=1, bytes=1, unknown_bytes=0, dtype="float32"
        )

    def unchanged(params, optimizer_state, index, batch):
        return params, optimizer_state, dict.fromkeys(METRICS, jnp.float32(0))

    monkeypatch.setattr("clp_jax.train.validation.measure_perplexity", measured)
    monkeypatch.setattr(loop, "make_train_step", lambda *_, **__: unchanged)
    settings["train"] |= {"steps": 20, "patience": 2, "checkpoint_every": 3, "keep_checkpoints": 1}
    config = RunConfig.from_dict(settings)
    summary = train_model(config)
    run = tmp_path / "run"
    assert (summary.steps, latest_step(run)) == (4, 4)
    lines = read_metrics(run)
    assert [line["step"] for line in lines if "validation/loss" in line] == [0, 2, 4, 6, 8]
    card = (run / "model" / CARD).read_text("utf-8")
    assert "| training | 4 steps of 8 sequences" in card
    assert "of up to 20 steps the one with the lowest held-out loss: 4" in card
    assert train_model(config, resume=True) == summary
    assert read_metrics(run) == lines


def test_it_needs_a_held_out_set(settings):
    del settings["data"]["validation"]
    settings["train"]["patience"] = 1
    with pytest.raises(UserError, match=r"patience would be ignored, because data\.val"):
        RunConfig.from_dict(settings)
