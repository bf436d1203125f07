import errno
import json
import math
import os
import time

import pytest

from clp_jax.errors import UserError
from clp_jax.train import metrics
from clp_jax.train.metrics import RunLog, read_metrics

from .conftest import events

LINE = {
    "loss": 2.0,
    "learning_rate": 0.1,
    "gradient_norm": 3.0,
    "gradient_norm/layers": 1.5,
    "skipped": 0.0,
    "spike": 0.0,
    "tokens": 100.0,
}


def log(folder, start=0, **options):
    sizes = {"steps": 10, "tokens_per_step": 100, "flops_per_token": 1000}
    since = time.monotonic()
    return RunLog(folder, start=start, since=since, **sizes, **options)


def write(folder, steps, start=0):
    with log(folder, start) as run:
        for step in run.awaited(steps):
            run.training(step, LINE, skipped=0)
            run.advance()


@pytest.fixture
def clock(monkeypatch):
    """The time that all see; element 0 is to be moved by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines_carry_step_tokens_and_values(tmp_path):
    with log(tmp_path) as run:
        run.validation(0, {"": {"loss": 5.0}, "English": {"loss": 3.0}}, {"norm_all": 0.5})
        for step in run.awaited([1, 2]):
            if step == 2:
                run.training(step, LINE, skipped=3)
    first, second = read_metrics(tmp_path)
    assert (first["step"], first["tokens"], first["validation/loss"]) == (0, 0, 5.0)
    assert first["validation/English/loss"] == 3.0
    assert first["embeddings/norm_all"] == 0.5
    assert (second["step"], second["tokens"], second["train/gradient_norm"]) == (2, 200, 3.0)
    assert (second["train/gradient_norm/layers"], second["train/skipped_steps"]) == (1.5, 3)
    assert second["train/perplexity"] == math.exp(2.0)
    assert {"train/skipped", "train/spike", "train/tokens"}.isdisjoint(second)
    assert 0 <= first["seconds"] <= second["seconds"]
    assert second["memory/host_peak_bytes"] > 2**20


def test_nan_is_null(tmp_path):
    with log(tmp_path) as run:
        for step in run.awaited([1]):
            run.training(step, LINE | {"loss": math.nan}, skipped=1)
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["train/loss"] is None
    assert math.isnan(read_metrics(tmp_path)[0]["train/loss"])


def test_resumed_log_drops_what_lies_beyond_and_a_torn_line(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    file = tmp_path / "metrics.jsonl"
    before = read_metrics(tmp_path)
    with file.open("a") as stream:
        stream.write('{"step": 5, "tok')
    write(tmp_path, [3], start=2)
    after = read_metrics(tmp_path)
    assert after[:2] == before[:2]
    assert [line["step"] for line in after] == [1, 2, 3]
    assert after[2]["seconds"] >= before[3]["seconds"]


def test_a_log_that_starts_over_drops_everything(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_speed_leaves_validation_and_checkpoints_out(tmp_path, clock):
    with log(tmp_path) as run:
        for step in run.awaited([4, 6]):
            clock[0] += 2.0 if step == 4 else 1.0
            run.training(step, LINE, skipped=0)
            with run.during("validation"):
                clock[0] += 48.0
            run.validation(step, {"": {"loss": 5.0}}, {})
    lines = [line for line in read_metrics(tmp_path) if "train/loss" in line]
    speeds = [line["speed/tokens_per_second"] for line in lines]
    assert speeds == [4 * 100 / 2.0, 2 * 100 / 1.0]
    chips = [line["speed/tokens_per_second_per_chip"] for line in lines]
    assert chips == [speed / 8 for speed in speeds]


def test_share_of_the_time_spent_waiting_for_batches(tmp_path, clock):
    def slow():
        for seconds in (1.0, 0.0, 3.0, 0.5):
            clock[0] += seconds
            yield seconds

    with log(tmp_path) as run:
        for step, _ in enumerate(run.awaited(slow()), start=1):
            clock[0] += 1.5
            if step % 2 == 0:
                run.training(step, LINE, skipped=0)
    waits = [line["speed/data_wait"] for line in read_metrics(tmp_path)]
    assert waits == [1.0 / 4.0, 3.5 / 6.5]


@pytest.mark.parametrize("peak", [None, 1e6])
def test_mfu_is_reported_where_the_peak_is_known(tmp_path, monkeypatch, clock, peak):
    monkeypatch.setattr(metrics, "peak_flops", lambda device: peak)
    with log(tmp_path) as run:
        for step in run.awaited([8]):
            clock[0] += 1.0
            run.training(step, LINE, skipped=0)
    [line] = read_metrics(tmp_path)
    expected = None if peak is None else 800 * 1000 / (8 * peak)
    assert line.get("speed/mfu") == expected


def test_goodput_over_sessions_counts_steps_done_again_as_lost(tmp_path, clock, capsys):
    def session(steps, start):
        with log(tmp_path, start) as run:
            clock[0] += 5.0
            for step in run.awaited(steps):
                clock[0] += 10.0
                with run.during("saving"):
                    clock[0] += 1.0
                run.training(step, LINE, skipped=0)
            run.print_time()

    session([1, 2, 3], start=0)
    capsys.readouterr()
    session([3, 4], start=2)
    last = read_metrics(tmp_path)[-1]
    seconds = {key[5:]: value for key, value in last.items() if key.startswith("time/")}
    assert seconds.pop("goodput") == 40.0 / 65.0
    assert seconds == {
        "start": 10.0, "training": 40.0, "data": 0.0, "validation": 0.0, "saving": 5.0, "lost": 10.0
    }  # fmt: skip
    assert last["seconds"] == 65.0
    table = capsys.readouterr().out
    assert "| steps that were repeated     |    10.0 | 15.4% |" in table
    assert "validation" not in table


def test_without_a_screen_lines_are_printed(tmp_path, capsys):
    with log(tmp_path) as run:
        for step in run.awaited([5]):
            run.training(step, LINE, skipped=2)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("step 5/10: loss 2.000, tokens/s ")
    for part in ("skipped 2", "perplexity 7.389", "learning rate 0.1", "tokens/s/chip", "left 00:"):
        assert part in line


def test_tensorboard_holds_the_same_numbers(tmp_path):
    write(tmp_path, [1])
    [file] = (tmp_path / "tensorboard").iterdir()
    [line] = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scalars = {
        value.tag: value.simple_value for event in events(file) for value in event.summary.value
    }
    expected = {key: value for key, value in line.items() if "/" in key}
    assert scalars == pytest.approx(expected, rel=1e-6)


def test_a_full_disk_is_reported_and_blocks_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def session():
        with log(tmp_path) as run:
            monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.write", full)
            monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.flush", full)
            for step in run.awaited([1]):
                run.training(step, LINE, skipped=0)

    with pytest.raises(
        UserError, match=r"metrics\.jsonl and .* \(No space left on device\): fix that and resume"
    ):
        session()
