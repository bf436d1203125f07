import time

import pytest

from clp_jax.config import RunConfig
from clp_jax.train.watchdog import EXIT_STATUS, Watchdog

from ..started import Started

STALLED_READER = """
import sys, time
from clp_jax.data.batches import TrainingBatches
from clp_jax.cli import main

read = TrainingBatches._batch
def stall(self, first):
    if first == 3 * 8:
        time.sleep(3600)
    return read(self, first)
TrainingBatches._batch = stall
main(["train", "--config", sys.argv[1]])
"""


@pytest.mark.slow
def test_a_stalled_reader_ends_the_run_with_its_place(settings, tmp_path):
    settings["mesh"] = {"data": 1, "fsdp": 1}
    settings["data"]["validation"] = None
    settings["train"] |= {"watchdog_minutes": 0.2, "dtype": "float32", "checkpoint_every": 1}
    (tmp_path / "run.yaml").write_text(RunConfig.from_dict(settings).to_yaml())
    status, told = Started(STALLED_READER, str(tmp_path / "run.yaml")).end(timeout=120)
    assert status == EXIT_STATUS, told
    assert "in stall" in told, "the stack of the thread that reads"
    last = told.splitlines()[-1]
    assert last.startswith("clp-jax: the wait for the batch after step 3 has taken more than 0.2 ")
    assert last.endswith("with --resume to go on from the newest checkpoint.")
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()


@pytest.fixture
def ends(monkeypatch):
    """What a watchdog would have ended."""
    ended = []
    monkeypatch.setattr(Watchdog, "_end", lambda self, stage: ended.append(stage))
    return ended


def test_stages_that_take_their_time_but_end_are_left_alone(ends):
    with Watchdog(0.2 / 60) as watchdog:
        for step in range(8):
            watchdog.stage(f"step {step}")
            time.sleep(0.1)
    time.sleep(0.4)
    assert ends == []


@pytest.mark.parametrize(("minutes", "ended"), [(0.1 / 60, True), (0.0, False)])
def test_a_stage_without_end_is_ended_unless_nothing_is_watched(ends, minutes, ended):
    with Watchdog(minutes) as watchdog:
        watchdog.stage("the save")
        time.sleep(0.4)
    assert ends[:1] == ["the save"] * ended
