import os
import subprocess
import sys

import pytest

from clp_jax import xla_flags


@pytest.fixture
def on_gpus(monkeypatch):
    monkeypatch.setattr(xla_flags, "find_spec", lambda name: name == "jax_cuda13_plugin")


def start_jax(given):
    return subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": given, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_compiler_knows_every_flag(on_gpus, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    xla_flags.set_compiler_flags()
    assert os.environ["XLA_FLAGS"].split() == list(xla_flags.GPU_FLAGS)
    assert start_jax(os.environ["XLA_FLAGS"]).returncode == 0
    unknown = start_jax("--xla_gpu_no_such_flag=true")
    assert unknown.returncode != 0
    assert "Unknown flag" in unknown.stderr


def test_what_the_user_sets_is_left_alone(on_gpus, monkeypatch):
    first, *others = xla_flags.GPU_FLAGS
    own = f"{first.partition('=')[0]}=false --xla_dump_to=/tmp/dump"
    monkeypatch.setenv("XLA_FLAGS", own)
    xla_flags.set_compiler_flags()
    assert os.environ["XLA_FLAGS"] == " ".join([own, *others])


def test_nothing_is_set_without_gpus(monkeypatch):
    monkeypatch.setattr(xla_flags, "find_spec", lambda name: None)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    xla_flags.set_compiler_flags()
    assert "XLA_FLAGS" not in os.environ
