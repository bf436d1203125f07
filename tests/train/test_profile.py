import pytest

from clp_jax.config import RunConfig
from clp_jax.train.loop import train_model
from clp_jax.train.profile import Profile


@pytest.mark.slow
def test_a_trace_of_a_few_steps_is_written(settings, tmp_path, capsys):
    train_model(RunConfig.from_dict(settings), profile=True)
    traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert traces[0].stat().st_size > 1000
    assert "Steps 2 to 4 are traced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("start", "steps", "traced"),
    [(0, 100, (11, 13)), (50, 100, (61, 63)), (0, 5, (3, 5)), (98, 100, (99, 100))],
)
def test_steps_that_are_traced(monkeypatch, tmp_path, start, steps, traced):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    profile = Profile(tmp_path, start, steps)
    found = []
    for step in range(start + 1, steps + 1):
        profile.before(step)
        if calls == ["start"]:
            found.append(step)
        profile.after(step, ())
    assert (found[0], found[-1]) == traced
    assert calls == ["start", "stop"]
