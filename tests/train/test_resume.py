"""The promise of exact resume, kept by processes that are really killed."""

import json
import shutil
import signal

import numpy as np
import pytest

from clp_jax.config import RunConfig
from clp_jax.train.loop import train_model
from clp_jax.train.metrics import read_metrics

from ..started import Started, start_two
from .conftest import leaves, without_times

pytestmark = pytest.mark.usefixtures("compiled_once")

KILLED_RUN = """
import json, os, signal, sys, time
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
from clp_jax.config import RunConfig
from clp_jax.train import loop

config = RunConfig.from_dict(json.loads(sys.argv[1]))
checkpoint = Path(config.train.out) / "checkpoints" / "8"
real_step = loop.make_train_step

def make_train_step(*args, **kwargs):
    step = real_step(*args, **kwargs)
    def step_until_killed(params, optimizer_state, index, batch):
        if index == 11:
            while not checkpoint.exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return step(params, optimizer_state, index, batch)
    return step_until_killed

loop.make_train_step = make_train_step
loop.train_model(config, resume=True)
"""

TWO_PROCESSES = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
from clp_jax.config import RunConfig
from clp_jax.train.loop import train_model
config = RunConfig.from_dict(json.loads(sys.argv[1]))
assert train_model(config) == train_model(config, resume=True), "a finished run is only read"
"""


def use_a_mixture_of_documents(settings):
    data = settings["data"]
    parts = {data["train"]: 3, data["validation"]: 1}
    data["train"] = [{"path": path, "weight": weight} for path, weight in parts.items()]
    data |= {"document_mask": True, "restart_positions": True}


@pytest.fixture
def long_run(settings):
    """16 steps with dropout and accumulation, checkpoints at 8 and 16, an uneven rhythm."""
    use_a_mixture_of_documents(settings)
    settings["model"]["dropout"] = 0.1
    settings["optimizer"]["epsilon"] = 1e-3  # Else Adam blows up what is only rounding.
    settings["train"] |= {
        "dtype": "float32",
        "steps": 16,
        "checkpoint_every": 8,
        "validate_every": 6,
        "gradient_accumulation_steps": 2,
    }
    return settings


def in_folder(settings, folder):
    return settings | {"train": settings["train"] | {"out": str(folder)}}


def test_killed_and_resumed_equals_never_interrupted(long_run, tmp_path):
    process = Started(KILLED_RUN, json.dumps(in_folder(long_run, tmp_path / "killed")))
    whole = train_model(RunConfig.from_dict(in_folder(long_run, tmp_path / "whole")))
    status, output = process.end()
    assert status == -signal.SIGKILL, output
    assert [line["step"] for line in read_metrics(tmp_path / "killed")][-1] == 11
    shutil.copytree(tmp_path / "killed", tmp_path / "other mesh")

    resumed = train_model(
        RunConfig.from_dict(in_folder(long_run, tmp_path / "killed")), resume=True
    )
    assert without_times(resumed.folder) == without_times(whole.folder)
    for ours, theirs in zip(leaves(resumed.folder), leaves(whole.folder), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    long_run["mesh"] = {"data": 2, "fsdp": 2, "tensor": 2}
    moved = train_model(
        RunConfig.from_dict(in_folder(long_run, tmp_path / "other mesh")), resume=True
    )
    for ours, theirs in zip(leaves(moved.folder), leaves(whole.folder), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_what_one_does(settings, tmp_path):
    settings["mesh"] = {"data": 2, "fsdp": 2, "tensor": 2}
    settings["optimizer"]["epsilon"] = 1e-3
    settings["train"] |= {"dtype": "float32"}
    use_a_mixture_of_documents(settings)
    processes = start_two(TWO_PROCESSES, json.dumps(in_folder(settings, tmp_path / "two")))
    one = train_model(RunConfig.from_dict(in_folder(settings, tmp_path / "one")))
    for process in processes:
        status, output = process.end()
        assert status == 0, output
    ones, twos = without_times(one.folder), without_times(tmp_path / "two")
    assert [line["step"] for line in twos] == [line["step"] for line in ones]
    for ours, theirs in zip(twos, ones, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for ours, theirs in zip(leaves(tmp_path / "two"), leaves(one.folder), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
