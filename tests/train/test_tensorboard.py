import math

from tensorboardX.proto.event_pb2 import SessionLog

from clp_jax.train.tensorboard import EventFile

from .conftest import events


def test_what_is_finite_is_kept_behind_a_new_start(tmp_path):
    file = EventFile(tmp_path / "tensorboard", start=4)
    file.write(
        5, {"train/loss": 2.5, "train/perplexity": math.inf, "train/gradient_norm": math.nan}
    )
    file.write(6, {"train/loss": 2.25})
    file.close()
    version, start, *lines = events(next((tmp_path / "tensorboard").glob("*.tfevents.*")))
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    told = [
        (line.step, value.tag, value.simple_value) for line in lines for value in line.summary.value
    ]
    assert told == [(5, "train/loss", 2.5), (6, "train/loss", 2.25)]


def test_it_is_written_out_now_and_then(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    file = EventFile(tmp_path, start=0)
    [written] = tmp_path.iterdir()
    before = written.stat().st_size
    file.write(1, {"train/loss": 2.5})
    assert written.stat().st_size == before
    now[0] = 31.0
    file.write(2, {"train/loss": 2.5})
    assert [event.step for event in events(written)][-2:] == [1, 2]
