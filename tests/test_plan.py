"""Plans for TPUs, made by the real compiler."""

import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
import yaml

from clp_jax import plan
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.plan import plan_run, planned_decoder

VOCABULARY = 640
"""Of the model that a transfer is to make."""
MODEL = {"model_type": "gpt2", "vocab_size": 512, "n_embd": 256, "n_layer": 3, "n_head": 4}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    return {
        "model": {"path": str(tmp_path), "dropout": 0.0},
        "data": {"train": "none", "sequence_length": 128},
        "train": {"out": "none", "steps": 10, "batch_size": 8},
    }


def plan_in_a_process(arguments, tmp_path):
    """Another process, since this one's JAX has started for CPUs alone."""

    file = tmp_path / "plan.json"
    process = subprocess.run(
        [sys.executable, "-m", "clp_jax", "plan", *arguments, "--json", str(file)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    return process, json.loads(file.read_text()) if file.exists() else None


@pytest.mark.parametrize("name", ["v5litepod-7", "v5p-1", "h100-8", "v4"])
def test_unknown_types_are_reported_with_the_known_ones(config, name):
    with pytest.raises(
        UserError, match=rf"{name} is not a known accelerator type .* v4-32, .* v5litepod-8"
    ):
        plan_run(RunConfig.from_dict(config), name)


@pytest.mark.parametrize("named", ["", "config.json"])
def test_a_model_is_planned_before_the_transfer_makes_it(config, tmp_path, named):
    section = RunConfig.from_dict(config | {"model": {"path": "unmade", "dropout": 0.0}}).model
    decoder = planned_decoder(section, str(tmp_path / named), 777)
    assert (decoder.vocab_size, decoder.hidden_size) == (777, 256)
    assert planned_decoder(section, str(tmp_path)).vocab_size == 512


def test_what_a_step_does_not_train_is_not_planned(config, monkeypatch):
    """The program gets the rows that stay, and frozen layers need no gradients of their weights."""
    compiled = []

    def make_train_step(*args, **options):
        compiled.append(options)
        memory = SimpleNamespace(
            argument_size_in_bytes=1, peak_memory_in_bytes=2, generated_code_size_in_bytes=3
        )
        return SimpleNamespace(memory_analysis=lambda: memory, as_text=lambda: "a program")

    monkeypatch.setattr(plan, "make_train_step", make_train_step)
    monkeypatch.setattr(plan, "_chips", lambda accelerator: jax.devices()[:1])
    monkeypatch.setattr(plan, "collective_bytes", lambda program: {})
    frozen = {"lr_multipliers": {"layers": 0}, "new_rows_only": True}
    wishes = (config, config | {"optimizer": frozen})
    plans = [plan_run(RunConfig.from_dict(wish), "v5litepod-1") for wish in wishes]
    assert compiled[0]["trained_rows"] is None
    assert compiled[1]["trained_rows"].shape == (512,)
    assert plans[0].flops - plans[1].flops == 2 * 3 * 12 * 256**2 * 8 * 128


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_plan_of_a_small_model_for_eight_chips(config, tmp_path):
    file = tmp_path / "run.yaml"
    unmade = config["model"] | {"path": str(tmp_path / "unmade")}
    file.write_text(yaml.safe_dump(config | {"model": unmade}))
    transfer = ["--source", str(tmp_path / "config.json"), "--vocab-size", str(VOCABULARY)]
    process, plan = plan_in_a_process(
        ["--config", str(file), "--accelerator-type", "v5litepod-8", *transfer], tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert "8 (v5litepod-8)" in process.stdout
    layers = 3 * 12 * 256**2
    parameters = layers + VOCABULARY * 256 + 1024 * 256
    assert plan["chips"] == 8
    # Slices of 32 numbers take more room in a chip's tiles of 8 x 128 than they have numbers.
    assert 1 <= plan["state_bytes"] / (3 * 4 * parameters / 8) < 1.4
    assert plan["flops"] == (6 * (layers + VOCABULARY * 256) + 6 * 3 * 128 * 256) * 8 * 128
    # More than the bfloat16 weights of all layers, less than eight times all in float32.
    moved = sum(plan["collective_bytes"].values())
    assert 2 * layers * 7 / 8 < moved < 8 * 4 * parameters

    config["train"]["batch_size"] = 2**17
    config["train"]["remat"] = "none"
    file.write_text(yaml.safe_dump(config))
    process, _ = plan_in_a_process(
        ["--config", str(file), "--accelerator-type", "v5litepod-8"], tmp_path
    )
    assert process.returncode == 1
    assert "131072 sequences in 1 microbatches needs" in process.stderr
    assert "Traceback" not in process.stderr
