"""A spot job of `scripts/tpu_vm.sh launch` on a pretended cloud that takes the VM away once."""

import os
import subprocess
import sys

import numpy as np
import pytest

from clp_jax.config import RunConfig
from clp_jax.train.loop import train_model

from .test_scripts import REMOTE_PYTHON, REPOSITORY, executable
from .train.conftest import inputs, leaves, settings, without_times  # noqa: F401

# The VM is the folder $FAKE/host and $FAKE/state. It is taken away, with all that is on it, when
# the run waits at step 3.
GCLOUD = """#!/usr/bin/env bash
printf '%s\\n' "$3 $4" >>"$FAKE/calls"
cd "$FAKE"
take_away() {
  kill -9 -"$(cat host/clp_jax/run.pid)"
  rm -rf host
}
for word in "$@"; do
  case "$word" in --command=*) remote="${word#--command=}" ;; esac
done
case "$3 $4" in
  "queued-resources create") mkdir host && echo ACTIVE >state ;;
  "queued-resources describe")
    if [[ -e waiting && ! -e taken ]]; then
      touch taken
      take_away
      echo SUSPENDED >state
    fi
    cat state ;;
  "queued-resources delete") rm -rf host state ;;
  "tpu-vm ssh") cd host && HOME="$FAKE/host" bash -c "$remote" ;;
  "tpu-vm scp")
    if [[ $5 == --recurse ]]; then cp -r "host/${6#*:}" "$7"
    else cp "$5" host/; fi ;;
esac
"""

CLP_JAX = """#!{python}
import os, pathlib, sys, time
if sys.argv[1] == "doctor":
    sys.exit()
import jax
jax.config.update("jax_num_cpu_devices", 8)
os.environ.pop("CLP_JAX_DISTRIBUTED")
from clp_jax.cli import main
from clp_jax.data.corpus.batches import TrainingBatches
fake = pathlib.Path(os.environ["FAKE"])
read = TrainingBatches._batch
def wait_once(self, first):
    if first == 3 * 8 and not (fake / "taken").exists():
        while not (fake / "run" / "checkpoints" / "2").is_dir():
            time.sleep(0.05)
        (fake / "waiting").touch()
        time.sleep(600)
    return read(self, first)
TrainingBatches._batch = wait_once
main()
"""


@pytest.mark.slow
def test_a_spot_run_that_was_taken_away_ends_with_the_bytes_of_an_unbroken_one(
    settings,  # noqa: F811
    tmp_path,
):
    whole = train_model(RunConfig.from_dict(settings)).folder
    fake = tmp_path / "fake"
    settings["train"] |= {"out": str(fake / "run"), "checkpoint_every": 1}
    executable(fake / "bin" / "gcloud", GCLOUD)
    executable(fake / "bin" / "python3", REMOTE_PYTHON)
    executable(fake / "venv" / "clp-jax", CLP_JAX.format(python=sys.executable))
    (tmp_path / "run.yaml").write_text(RunConfig.from_dict(settings).to_yaml())
    done = subprocess.run(
        [
            *(REPOSITORY / "scripts" / "tpu_vm.sh", "launch", "german", "--spot"),
            *("--poll", "0.2", "--copy", "run.log", "--to", str(tmp_path / "log")),
            *("--", "train", "--config", str(tmp_path / "run.yaml")),
        ],
        env=os.environ
        | {
            "PATH": f"{fake / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "FAKE": str(fake),
            "FAKE_VENV": str(fake / "venv"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    calls = (fake / "calls").read_text().splitlines()
    once = [
        call for call in calls if call.startswith("queued-resources") and "describe" not in call
    ]
    assert once == [f"queued-resources {verb}" for verb in ("create", "delete") * 2]
    assert calls[-2:] == ["tpu-vm scp", "queued-resources delete"]
    assert "german was taken away: it is queued again." in done.stdout
    assert (tmp_path / "log").read_text()
    assert without_times(fake / "run") == without_times(whole)
    for ours, theirs in zip(leaves(fake / "run"), leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
