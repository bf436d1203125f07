"""The benchmarks can be started, and what they share measures what it says."""

import importlib
import sys
from functools import partial

import pytest

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "scripts" / "benchmarks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))
SHARED = {"harness", "models", "train_ours"}
MEGABYTE = 2**20


@pytest.fixture
def load(monkeypatch):
    """Imports a script by its name; no later import finds what it has left."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {*NAMES} - before:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SHARED])
def test_every_benchmark_explains_itself(load, monkeypatch, capsys, name):
    script = load(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}.py")


def test_a_row_is_printed_before_the_next_is_measured(load, capsys):
    def rows():
        yield "first", "1"
        assert capsys.readouterr().out == "| way   |   s |\n| ----- | --: |\n| first |   1 |\n"
        yield "another", "2"

    load("harness").print_table(("way", "s"), rows())
    assert capsys.readouterr().out == "| another |   2 |\n"


def hold(size: int, seconds: str) -> str:
    return f"import time; held = bytearray(b'x') * {size}; time.sleep({seconds})"


def test_memory_is_that_of_a_process_and_its_children_beyond_the_start(load):
    harness = load("harness")
    code = hold(100 * MEGABYTE, "1.5")
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    for words in (code, child):
        found = harness.in_a_process(exec, words)
        assert found.seconds >= 1.5
        assert found.cpu_seconds < found.seconds
        assert 100 * MEGABYTE <= found.peak < 150 * MEGABYTE


def test_what_is_prepared_is_not_measured(load):
    harness = load("harness")
    held = f"lambda held=bytearray(b'x') * {100 * MEGABYTE}: len(held)"
    found = harness.measure(eval, held)
    assert found.result == 100 * MEGABYTE
    assert found.peak < 50 * MEGABYTE


def test_a_peer_is_watched_from_ready_on(load, tmp_path):
    harness = load("harness")
    lines = ["before = bytearray(b'x') * 2**27", "print('ready', flush=True)"]
    peer = tmp_path / "peer.py"
    peer.write_text(
        "\n".join([*lines, hold(100 * MEGABYTE, "0.5"), "print('log\\n{\"rows\": 3}')"])
    )
    figures, peak = harness.measure_script(sys.executable, str(peer))
    assert figures == {"rows": 3}
    assert 80 * MEGABYTE <= peak < 150 * MEGABYTE
    peer.write_text("print('ready'); raise SystemExit(2)")
    with pytest.raises(SystemExit, match=r"peer\.py failed"):
        harness.measure_script(sys.executable, str(peer))


def test_ways_take_turns_and_ratios_are_those_of_a_turn(load):
    harness, called = load("harness"), []
    ways = {name: partial(called.append, name) for name in "ab"}
    assert harness.in_turns(2, ways) == {"a": [None] * 2, "b": [None] * 2}
    assert called == ["a", "b", "a", "b"]
    assert harness.ratio([1.0, 6.0, 2.0], [1.0, 2.0, 1.0]) == "2.00 (1.00 to 3.00)"
    assert harness.ratio([3.0], [2.0]) == "1.50"
