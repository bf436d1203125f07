import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from clp_jax.data.config import ExecutionSection
from clp_jax.data.execution import only_run, run_stages
from clp_jax.data.stages import ReadDocuments, Stage, WriteDocuments, documents_file, logs_of
from clp_jax.errors import UserError

from ..marks import slow

TASKS = 5


class Make(PipelineStep):
    """Some documents; what went wrong with a task goes wrong once."""

    type, name = "READ", "made"

    def __init__(self, marks: Path, fault: str = "", slow: float = 0.0):
        super().__init__()
        self.marks, self.fault, self.slow = marks, fault, slow

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with (self.marks / f"{rank}").open("a") as file:
            file.write("began\n")
        for number in range(3):
            time.sleep(self.slow)
            if self.fault and rank == 3 and number == 1:
                self.fail()
            yield Document(text=f"Text {rank} {number}", id=f"{rank}/{number}")

    def fail(self) -> None:
        match self.fault:
            case "user":
                raise UserError("Line 7 is broken.")
            case "disk":
                raise OSError(28, "No space left on device")
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def seen_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import this file by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def stages(folder: Path, **faults: Any) -> list[Stage]:
    return [
        Stage("make", [Make(folder / "marks", **faults), WriteDocuments(folder / "one")], TASKS),
        Stage("copy", [ReadDocuments(folder / "one"), WriteDocuments(folder / "two")], TASKS),
    ]


def run(folder: Path, workers: int = 2, **faults: Any) -> None:
    (folder / "marks").mkdir(exist_ok=True, parents=True)
    with only_run(folder / "work"):
        run_stages(stages(folder, **faults), folder / "work", ExecutionSection(workers=workers))


def results(folder: Path) -> list[bytes]:
    return [documents_file(folder / "two", rank).read_bytes() for rank in range(TASKS)]


def starts(folder: Path) -> list[int]:
    marks = (folder / "marks" / f"{rank}" for rank in range(TASKS))
    return [len(mark.read_text().splitlines()) if mark.exists() else 0 for mark in marks]


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_every_task_of_every_stage_runs_once(tmp_path: Path, workers: int):
    run(tmp_path, workers)
    assert starts(tmp_path) == [1] * TASKS
    found = [
        document.id
        for rank in range(TASKS)
        for document in ReadDocuments(tmp_path / "two").run(rank=rank)
    ]
    assert found == [f"{rank}/{number}" for rank in range(TASKS) for number in range(3)]
    run(tmp_path, workers)
    assert starts(tmp_path) == [1] * TASKS


@pytest.mark.parametrize(
    ("fault", "workers", "message"),
    [
        ("user", 1, r"Line 7 is broken\."),
        slow("user", 2, r"Line 7 is broken\."),
        ("disk", 1, "no space is left on the disk .* Make room there"),
        slow("disk", 2, "no space is left on the disk .* Make room there"),
        ("killed", 2, r"process of the stage make was killed.* use fewer --execution\.workers"),
    ],
)
def test_a_failed_task_is_reported_and_only_what_is_missing_runs_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str, workers: int, message: str
):
    with pytest.raises(UserError, match=message):
        run(tmp_path, workers, fault=fault)
    assert "Traceback" not in capfd.readouterr().err
    done = {
        int(mark.name) for mark in (logs_of(tmp_path / "work", "make") / "completions").iterdir()
    }
    assert 3 not in done
    assert not documents_file(tmp_path / "one", 3).exists()
    before = starts(tmp_path)
    run(tmp_path, workers)
    after = starts(tmp_path)
    assert all(after[rank] == before[rank] for rank in done)
    assert all(after[rank] == before[rank] + 1 for rank in range(TASKS) if rank not in done)
    run(tmp_path / "unbroken", 1)
    assert results(tmp_path) == results(tmp_path / "unbroken")


# In the background of a shell, SIGINT is ignored, and by all that is started there.
ALONE = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.data import test_execution
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    test_execution.run(Path(sys.argv[2]), 2, slow=float(sys.argv[3]))
"""


def begin(folder: Path, slow: float = 0.3) -> subprocess.Popen[bytes]:
    script = folder / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, script, Path(__file__).parents[2], folder, str(slow)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    while sum(map(bool, starts(folder))) < 2:  # Both workers are at work.
        time.sleep(0.05)
        assert child.poll() is None
    return child


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder_and_a_killed_one_leaves_no_process(tmp_path: Path):
    child = begin(tmp_path, slow=2.0)
    with pytest.raises(UserError, match="Another run is using"):
        run(tmp_path)
    child.kill()
    child.wait()
    run(tmp_path)
    run(tmp_path / "unbroken", 1)
    assert results(tmp_path) == results(tmp_path / "unbroken")


@pytest.mark.slow
def test_an_interrupted_run_ends_at_once_and_resumes(tmp_path: Path):
    child = begin(tmp_path, slow=60.0)
    began = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(timeout=120) != 0
    assert time.monotonic() - began < 30
    assert child.stderr is not None
    assert child.stderr.read().count(b"KeyboardInterrupt") == 1
    run(tmp_path)
    run(tmp_path / "unbroken", 1)
    assert results(tmp_path) == results(tmp_path / "unbroken")
