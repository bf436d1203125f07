import json

import pytest
from tensorboardX.proto.event_pb2 import Event

from clp_jax.train import metrics
from clp_jax.train.metrics import RunLog, read_metrics

LINE = {"loss": 2.0, "learning_rate": 0.1, "gradient_norm": 3.0}


def log(folder, start=0):
    return RunLog(folder, start=start, steps=10, tokens_per_step=100, flops_per_token=1000)


def write(folder, steps, start=0):
    with log(folder, start) as run:
        for step in steps:
            run.training(step, LINE)
            run.advance()


def test_lines_carry_step_tokens_and_values(tmp_path):
    with log(tmp_path) as run:
        run.validation(0, {"loss": 5.0})
        run.training(2, LINE)
    first, second = read_metrics(tmp_path)
    assert (first["step"], first["tokens"], first["validation/loss"]) == (0, 0, 5.0)
    assert (second["step"], second["tokens"], second["train/gradient_norm"]) == (2, 200, 3.0)
    assert 0 <= first["seconds"] <= second["seconds"]


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
    assert after[2]["seconds"] >= before[1]["seconds"]


def test_log_that_starts_anew_drops_everything(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_speed_leaves_validation_and_checkpoints_out(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    with log(tmp_path) as run:
        now[0] = 2.0
        run.training(4, LINE)
        now[0] = 50.0
        run.validation(4, {"loss": 5.0})
        now[0] = 51.0
        run.training(6, LINE)
    speeds = [x["train/tokens_per_second"] for x in read_metrics(tmp_path) if "train/loss" in x]
    assert speeds == [4 * 100 / 2.0, 2 * 100 / 1.0]


def test_share_of_the_time_spent_waiting_for_batches(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])

    def slow():
        for seconds in (1.0, 0.0, 3.0, 0.5):
            now[0] += seconds
            yield seconds

    with log(tmp_path) as run:
        for step, _ in enumerate(run.awaited(slow()), start=1):
            now[0] += 1.5
            if step % 2 == 0:
                run.training(step, LINE)
    waits = [line["train/data_wait"] for line in read_metrics(tmp_path)]
    assert waits == [1.0 / 4.0, 3.5 / 6.5]


@pytest.mark.parametrize("peak", [None, 1e6])
def test_mfu_is_told_where_the_peak_is_known(tmp_path, monkeypatch, peak):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(metrics, "peak_flops", lambda device: peak)
    with log(tmp_path) as run:
        now[0] = 1.0
        run.training(8, LINE)
    [line] = read_metrics(tmp_path)
    expected = None if peak is None else 800 * 1000 / (8 * peak)
    assert line.get("train/mfu") == expected


def test_tensorboard_holds_the_same_numbers(tmp_path):
    write(tmp_path, [1])
    [file] = (tmp_path / "tensorboard").iterdir()
    [line] = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scalars = {
        value.tag: value.simple_value for event in events(file) for value in event.summary.value
    }
    assert scalars == pytest.approx({k: v for k, v in line.items() if k.startswith("train/")})


def events(file):
    """TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    data = file.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
