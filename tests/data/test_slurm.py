"""Jobs for Slurm, with a stand-in for sbatch that reads the options of a script and runs it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from datatrove.data import Document

from clp_jax.data.config import ExecutionSection, PrepareConfig
from clp_jax.data.execution import run_stages
from clp_jax.data.stages import ReadDocuments, Stage, WriteDocuments, documents_file
from clp_jax.errors import UserError

TASKS = 3
HOSTILE = 'it\'s $(touch gone) `touch gone`; touch gone & #a "b" 5%j'

SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
NODE = {{"SLURM_NODELIST": "localhost", "SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "1000"}}
script = pathlib.Path(sys.argv[-1]).read_text()
seen = pathlib.Path({seen!r})
(seen / str(len(list(seen.iterdir())))).write_text(script)
for task in range(int(re.search(r"--array=0-(\\d+)", script)[1]) + 1):
    inside = {{"SLURM_ARRAY_TASK_ID": str(task), **NODE}}
    done = subprocess.run(["bash", sys.argv[-1]], env=os.environ | inside, capture_output=True)
    print(done.stderr.decode(), file=sys.stderr)
print("Submitted batch job 17")
"""
SRUN = """#!/bin/bash
while [[ $1 != launch_pickled_pipeline ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo localhost
"""
NOTED = """#!/bin/bash
printf '%s\\n' "$@" >>{file}
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of a cluster on the path; the folder keeps the scripts that sbatch was given."""
    programs, seen = tmp_path / "bin", tmp_path / "seen"
    programs.mkdir()
    seen.mkdir()
    for name, text in (
        ("sbatch", SBATCH.format(python=sys.executable, seen=str(seen))),
        ("srun", SRUN),
        ("scontrol", SCONTROL),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    search = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(search))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return seen


def copying(folder: Path) -> list[Stage]:
    """Two stages, the first of which reads what is there already."""
    for rank in range(TASKS):
        made = [Document(text=f"Text {rank} {number}", id=f"{rank}/{number}") for number in "123"]
        assert [*WriteDocuments(folder / "one").run(iter(made), rank=rank)] == made
    return [
        Stage("read", [ReadDocuments(folder / "one"), WriteDocuments(folder / "two")], TASKS),
        Stage("copy", [ReadDocuments(folder / "two"), WriteDocuments(folder / "three")], TASKS),
    ]


def options(script: str) -> dict[str, str]:
    """What Slurm reads: one word of a shell behind each `#SBATCH`."""
    words = [
        shlex.split(line.removeprefix("#SBATCH"), comments=True)
        for line in script.splitlines()
        if line.startswith("#SBATCH")
    ]
    assert all(len(found) == 1 for found in words), script
    return dict(word.removeprefix("--").partition("=")[::2] for (word,) in words)


def test_slurm_needs_a_partition_and_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"add --execution\.partition"):
        run_stages(copying(tmp_path), tmp_path / "work", ExecutionSection(executor="slurm"))
    monkeypatch.setenv("PATH", str(tmp_path))
    section = ExecutionSection(executor="slurm", partition="cpu")
    with pytest.raises(UserError, match="sbatch is not installed here"):
        run_stages(copying(tmp_path), tmp_path / "work", section)


def test_a_folder_is_one_word_whatever_its_name(tmp_path: Path, cluster: Path, monkeypatch):
    noted = tmp_path / "noted"
    srun = tmp_path / "bin" / "srun"
    srun.write_text(NOTED.format(file=shlex.quote(str(noted))))
    folder = tmp_path / HOSTILE
    folder.mkdir()
    monkeypatch.chdir(folder)
    section = ExecutionSection(executor="slurm", partition="cpu,gpu", time="2-12", memory=7)
    assert not run_stages(copying(folder)[:1], folder / "work", section)
    pipeline = folder / "work" / "logs" / "read" / "executor.pik"
    assert (
        noted.read_text().splitlines()
        == [*("-l", "-n", "1", "launch_pickled_pipeline", str(pipeline))] * TASKS
    )
    assert pipeline.exists()
    assert not [*tmp_path.rglob("gone")]
    (script,) = (file.read_text() for file in cluster.iterdir())
    found = options(script)
    assert {key: found[key] for key in ("partition", "time", "mem-per-cpu")} == {
        "partition": "cpu,gpu",
        "time": "2-12",
        "mem-per-cpu": "7G",
    }
    logs = str(pipeline.parent / "slurm_logs" / "NAME").replace("%", "%%")
    assert found["output"] == found["error"] == logs.replace("NAME", "%A_%a.out")


@pytest.mark.slow
def test_a_cluster_of_slurm_does_the_same(tmp_path: Path, cluster: Path):
    folder = tmp_path / HOSTILE
    folder.mkdir()
    section = ExecutionSection(executor="slurm", partition="cpu")
    assert not run_stages(copying(folder), folder / "work", section)
    for rank in range(TASKS):
        one, three = (documents_file(folder / name, rank) for name in ("one", "three"))
        assert one.read_bytes() == three.read_bytes()
    assert not [*tmp_path.rglob("gone")]
    assert subprocess.run(["bash", "-n", *cluster.iterdir()], check=False).returncode == 0


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\\b", "a::b", "a\u2028b"])
def test_a_folder_that_cannot_be_quoted_is_refused(tmp_path: Path, cluster: Path, name: str):
    folder = tmp_path / name
    section = ExecutionSection(executor="slurm", partition="cpu")
    with pytest.raises(UserError, match="cannot be used in a Slurm script") as told:
        run_stages(
            [Stage("make", [WriteDocuments(folder / "one")], TASKS)], folder / "work", section
        )
    assert str(told.value).isprintable()
    assert not folder.exists()
    assert not [*cluster.iterdir()]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", "cpu\ntouch gone"),
        ("partition", "cpu --wrap=gone"),
        ("partition", "-cpu"),
        ("partition", "$(touch gone)"),
        ("partition", ""),
        ("time", "1:00:00\ntouch gone"),
        ("time", "1:00:00 --wrap=gone"),
        ("time", "soon"),
        ("memory", 0),
        ("memory", "4G --wrap=gone"),
    ],
)
def test_invalid_values_are_refused(key: str, value: object):
    with pytest.raises(UserError, match=rf"execution\.{key}"):
        PrepareConfig.from_dict({"execution": {key: value}})
