"""Fifty steps with every axis of a mesh, in one process and in two, are those of one device.

The tolerances allow for float32 sums in another order, which grow over the steps. The largest
difference seen was 9e-7 of a loss or norm and 2e-7 in a parameter; metrics may differ by 1e-5 of
their value, parameters by 1e-4 of theirs and 1e-5.
"""

import json

import numpy as np
import pytest

from clp_jax.config import RunConfig
from clp_jax.mesh import single_device_mesh
from clp_jax.train import inputs as train_inputs
from clp_jax.train.loop import train_model

from ..marks import slow
from ..started import start_two
from .conftest import CONFIG, leaves, without_times, write_model_files

BLOOM = {"model_type": "bloom", "vocab_size": 304, "hidden_size": 32, "n_layer": 2, "n_head": 8}
MODELS = {"gpt2": CONFIG | {"n_head": 8}, "bloom": BLOOM}

MESHES = {
    "tensor": {"tensor": 8},
    "sequence": {"sequence": 8},
    "mixed": {"data": 2, "sequence": 2, "tensor": 2},
    "other mixed": {"fsdp": 2, "sequence": 2, "tensor": 2},
}
OF_A_MODEL = [
    ("gpt2", "mixed"),
    slow("bloom", "other mixed"),
]

TRAIN = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from clp_jax.config import RunConfig
from clp_jax.train.loop import train_model
train_model(RunConfig.from_dict(json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def configured(request, inputs, tmp_path_factory):
    """The settings of a run of a model on a mesh; documents are masked for GPT-2."""
    folder = tmp_path_factory.mktemp(request.param)
    write_model_files(folder, MODELS[request.param])
    gpt2 = request.param == "gpt2"

    def configure(name, mesh=None):
        return {
            "model": {"path": str(folder), "init": "random", "dropout": 0.0},
            "data": {
                "train": str(inputs / "train"),
                "validation": str(inputs / "validation"),
                "sequence_length": 16,
                "document_mask": gpt2,
                "restart_positions": gpt2,
            },
            "mesh": {"fsdp": 1} | (mesh or {}),
            "optimizer": {"learning_rate": 0.003, "warmup_steps": 5, "epsilon": 1e-3},
            "train": {
                "out": str(folder / name),
                "steps": 50,
                "batch_size": 8,
                "dtype": "float32",
                "log_every": 1,
                "validate_every": 25,
                "checkpoint_every": 50,
            },
        }

    return configure


@pytest.fixture(scope="module")
def one(configured):
    """The folder of the run on one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_inputs, "run_mesh", lambda *_: single_device_mesh())
        return train_model(RunConfig.from_dict(configured("one"))).folder


def assert_same(folder, one):
    lines, expected = without_times(folder), without_times(one)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    losses = [line["train/loss"] for line in expected if "train/loss" in line]
    assert len(losses) == 50
    assert losses[-1] < 0.8 * losses[0]
    for ours, theirs in zip(lines, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in zip(leaves(folder), leaves(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("configured", "name"), OF_A_MODEL, indirect=["configured"])
def test_eight_devices(configured, one, name):
    assert_same(train_model(RunConfig.from_dict(configured(name, MESHES[name]))).folder, one)


# The axis spans the processes, so that both feed the same rows.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("configured", "name"), [("gpt2", "sequence"), ("bloom", "tensor")], indirect=["configured"]
)
def test_two_processes_of_four_devices(configured, one, name):
    settings = configured("two", MESHES[name])
    processes = start_two(TRAIN, json.dumps(settings))
    for process in processes:
        status, output = process.end()
        assert status == 0, output
    assert_same(one.parent / "two", one)
