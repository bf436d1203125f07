"""Runs that are killed again and again, in one process and in two, and end as if nothing was."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from clp_jax.config import RunConfig

from ..started import Started, start_two
from .conftest import without_times, write_model_files

pytestmark = pytest.mark.slow

# What is done next is told on the standard output, and saves take a little longer.
RUN = """
import json, os, sys, time
import jax
from jax.experimental.multihost_utils import sync_global_devices
jax.config.update("jax_num_cpu_devices", 1)
if "JAX_COORDINATOR_ADDRESS" in os.environ:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        os.environ["JAX_COORDINATOR_ADDRESS"], 2, int(os.environ["JAX_PROCESS_ID"]),
        heartbeat_timeout_seconds=10,
    )
    sync_global_devices("both are there")  # Gloo is less patient than `initialize`.
from clp_jax import cli
from clp_jax.checkpoint import orbax
from clp_jax.train import loop

def told(word, function, pause=0.0):
    def tell_first(*args, **kwargs):
        print(word, flush=True)
        time.sleep(pause)
        return function(*args, **kwargs)
    return tell_first

make_train_step = loop.make_train_step
pause = 0.1 if jax.process_count() == 2 else 0.0  # It takes JAX a second to pass on a SIGTERM.
loop.make_train_step = lambda *a, **k: told("step", make_train_step(*a, **k), pause)
orbax.RunCheckpoints.save = told("save", orbax.RunCheckpoints.save)
orbax.write_checksums = told("sums", orbax.write_checksums, pause=0.2)
cli.main(["train", "--config", sys.argv[1], "--resume"])
"""


# Two layers whose four heads share two of keys and values.
LLAMA = {"model_type": "llama", "vocab_size": 304, "hidden_size": 32, "intermediate_size": 48,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip


@pytest.fixture
def configure(settings, tmp_path):
    """Writes the configuration of a run with this folder."""
    (tmp_path / "llama").mkdir()
    write_model_files(tmp_path / "llama", LLAMA)
    settings["model"]["path"] = str(tmp_path / "llama")
    settings["data"]["validation"] = None
    settings["model"]["dropout"] = 0.1
    settings["optimizer"]["warmup_steps"] = 5
    settings["train"] |= {"dtype": "float32", "steps": 90, "checkpoint_every": 3}

    def write(out, processes=1):
        settings["train"]["out"] = str(out)
        settings["mesh"] = {"data": processes, "fsdp": 1}
        file = tmp_path / f"{out.name}.yaml"
        file.write_text(RunConfig.from_dict(settings).to_yaml())
        return file

    return write


@pytest.fixture
def life(configure):
    """Starts the processes of a run, which goes on from where it is."""

    def start(out, processes=1):
        file = configure(out, processes)
        return [Started(RUN, str(file))] if processes == 1 else start_two(RUN, str(file))

    return start


def wait_for(process, word, times):
    """Read what the process tells, until it told the word so often; False if it ends before."""
    for line in process.stdout:
        times -= line.strip() == word
        if not times:
            return True
    return False


def newest(run):
    return max((run / "checkpoints").glob("*[0-9]"), key=lambda folder: int(folder.name))


def flip_a_bit(run):
    """In the largest file of the newest checkpoint, which is one of the parameters."""
    file = max(newest(run).rglob("d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def state(run):
    """All arrays and the data position of a run's last checkpoint."""
    folder = newest(run)
    reader = ocp.PyTreeCheckpointer()
    arrays = []
    for item in ("params", "optimizer"):
        tree = reader.metadata(folder / item).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        arrays += jax.tree.leaves(reader.restore(folder / item, restore_args=as_numpy))
    return folder.name, arrays, json.loads((folder / "data" / "metadata").read_text())


def assert_same_end(run, other):
    (step, arrays, data), (other_step, other_arrays, other_data) = state(run), state(other)
    assert (step, data) == (other_step, other_data) == ("90", data)
    assert len(arrays) > 30
    for ours, theirs in zip(arrays, other_arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert without_times(run) == without_times(other)


def test_25_kills_change_nothing(life, tmp_path):
    dice = random.Random(5)
    (whole,) = life(tmp_path / "whole")
    moments = [
        *[("start", delay) for delay in (1.0, 4.0)],
        *[("step", dice.randint(1, 7)) for _ in range(11)],
        *[("save", dice.randint(1, 2)) for _ in range(6)],
        *[("sums", dice.randint(1, 2)) for _ in range(6)],
    ]
    dice.shuffle(moments)
    ended = []
    for number, (word, times) in enumerate(moments):
        (process,) = life(tmp_path / "killed")
        if word == "start":
            time.sleep(times)
        else:
            assert wait_for(process, word, times), f"the run ended before kill {number}"
            time.sleep(dice.uniform(0, 0.25))
        process.send_signal(signal.SIGTERM if number % 3 == 2 else signal.SIGKILL)
        status, rest = process.end(timeout=120)
        ended.append((word, status, "asked to stop" in rest))
    assert len(ended) == 25
    told = [status for word, status, stopped in ended if stopped]
    assert len(told) >= 5, ended
    assert set(told) == {0}
    assert all(status == -signal.SIGKILL for _, status, stopped in ended if not stopped), ended

    (last,) = life(tmp_path / "killed")
    for process in (whole, last):
        status, rest = process.end(timeout=120)
        assert status == 0, rest
    assert_same_end(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed" / "checkpoints").glob("*[!0-9]*"))


def test_the_loss_of_one_of_two_processes_ends_the_other_and_changes_nothing(life, tmp_path):
    for process in life(tmp_path / "whole", processes=2):
        process.end()
    moments = [("step", 3), ("sums", 1), ("step", 7), ("save", 2), ("step", 2), ("sums", 2)]
    for number, (word, times) in enumerate(moments):
        number_told = signal.SIGTERM if number % 2 else signal.SIGKILL
        processes = life(tmp_path / "killed", processes=2)
        assert wait_for(processes[0], word, times)
        processes[number // 2 % 2].send_signal(number_told)
        statuses, ended = zip(*(process.end(timeout=120) for process in processes), strict=True)
        if number_told == signal.SIGTERM:
            assert statuses == (0, 0)
            assert ["asked to stop" in rest for rest in ended] == [True, False]
        else:
            assert statuses[number // 2 % 2] == -signal.SIGKILL
            assert statuses[1 - number // 2 % 2] not in (0, -signal.SIGKILL), "it ends by itself"
    flip_a_bit(tmp_path / "killed")
    ended = []
    for process in life(tmp_path / "killed", processes=2):
        status, rest = process.end()
        assert status == 0, rest
        ended.append(rest)
    assert "is damaged" in "".join(ended)
    assert_same_end(tmp_path / "killed", tmp_path / "whole")


FULL_DISK = """
mount -t tmpfs -o size=1m none disk || exit 77
train() { "$1" -m clp_jax train --config run.yaml --resume 2>&1; echo "status $?"; }
train "$1"
ls disk/run/checkpoints
mount -o remount,size=64m disk
train "$1"
cp -r disk/run ended
"""


def test_a_full_disk_is_reported_and_costs_no_more_than_the_last_interval(
    life, configure, settings, tmp_path
):
    (tmp_path / "disk").mkdir()
    settings["train"]["log_every"] = 1
    configure(tmp_path / "disk" / "run")
    told = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if "status" not in told.stdout:
        pytest.skip(f"no file system of its own for a process here: {told.stderr}")
    full, after = told.stdout.split("status 1\n")
    # A checkpoint or the metrics, whichever meets the full disk first.
    run = re.escape(f"{tmp_path}/disk/run/")
    told = rf"clp-jax: {run}(checkpoints/|metrics\.jsonl).* cannot be written "
    assert re.match(told + r"\([Nn]o space .*\): fix that and resume", full.splitlines()[-1])
    assert "Traceback" not in full
    kept = [int(name) for name in after.splitlines() if name.isdigit()]
    shown = [int(step) for step in re.findall(r"^step (\d+)/90: ", full, re.MULTILINE)]
    assert max(shown) - max(kept) <= 2 * 3, "the interval of the failed checkpoint, at the most"
    assert after.endswith("status 0\n")

    (whole,) = life(tmp_path / "whole")
    whole.end()
    assert_same_end(tmp_path / "ended", tmp_path / "whole")
