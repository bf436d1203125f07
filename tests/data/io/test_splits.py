"""How the work is divided: by the names and sizes of files that are never opened."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest

from clp_jax.data.config import SourceSection
from clp_jax.data.io.splits import Split, plan_tasks
from clp_jax.errors import UserError

MIB = 1 << 20


def file(path: Path, mib: float) -> Path:
    """A file of a size, which takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(int(mib * MIB))
    return path


def plan(*inputs: object, kind: str = "files", limit: int | None = None) -> list[list[tuple]]:
    sources = [SourceSection(input=str(item), kind=kind) for item in inputs]
    return [
        [(Path(piece.input).name, piece.part, piece.parts) for piece in task]
        for task in plan_tasks(sources, limit)
    ]


def test_small_files_are_put_together_in_order(tmp_path: Path):
    for number in range(8):
        file(tmp_path / f"{number}.jsonl", 3)
    assert plan(tmp_path / "*.jsonl") == [
        [("0.jsonl", 0, 1), ("1.jsonl", 0, 1), ("2.jsonl", 0, 1)],
        [("3.jsonl", 0, 1), ("4.jsonl", 0, 1), ("5.jsonl", 0, 1)],
        [("6.jsonl", 0, 1), ("7.jsonl", 0, 1)],
    ]


@pytest.mark.parametrize(
    ("name", "mib", "parts"),
    [
        ("a.jsonl", 0, 1),
        ("a.jsonl", 8, 1),
        ("a.jsonl", 15, 1),
        ("a.jsonl", 16, 2),
        ("a.jsonl", 32, 4),
        ("a.jsonl.gz", 32, 12),
        ("a.jsonl.zst", 8, 3),
        ("a.parquet", 8, 3),
        ("a.jsonl", 5000, 16),
        ("a.txt", 64, 1),
    ],
)
def test_large_files_are_cut_by_the_size_of_their_text(
    tmp_path: Path, name: str, mib: float, parts: int
):
    assert plan(file(tmp_path / name, mib)) == [[(name, part, parts)] for part in range(parts)]


def test_texts_between_blank_lines_can_be_cut(tmp_path: Path):
    assert len(plan(file(tmp_path / "de.txt", 32), kind="oscar-2019")) == 4


def test_there_are_no_more_than_1024_tasks(tmp_path: Path):
    for number in range(300):
        file(tmp_path / f"{number:03d}.jsonl", 700)
    tasks = plan(tmp_path / "*")
    assert [len(task) for task in tasks] == [1] * 900
    for number in range(300, 5000):
        file(tmp_path / f"{number:04d}.jsonl", 8)
    assert 600 < len(plan(tmp_path / "*")) <= 1024


def test_a_part_is_never_in_a_task_with_another_of_its_file(tmp_path: Path):
    for number, mib in enumerate([3, 40, 1, 33, 100, 2]):
        file(tmp_path / f"{number}.jsonl", mib)
    for task in plan(tmp_path / "*"):
        assert len(task) == len({name for name, _, _ in task})


def test_a_limit_makes_one_task_of_whole_files(tmp_path: Path):
    file(tmp_path / "a.jsonl", 100)
    file(tmp_path / "b.jsonl", 1)
    assert plan(tmp_path / "*", limit=5) == [[("a.jsonl", 0, 1), ("b.jsonl", 0, 1)]]


def test_sources_keep_their_order_and_a_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        file(tmp_path / name, 1)
    monkeypatch.chdir(tmp_path)
    ((*names,),) = plan("c.jsonl", tmp_path / "*", "./b.jsonl")
    assert [name for name, _, _ in names] == ["c.jsonl", "a.jsonl", "b.jsonl"]


def test_names_have_the_source_and_the_file_but_not_the_machine(tmp_path: Path):
    file(tmp_path / "de" / "2020" / "a.jsonl", 1)
    file(tmp_path / "de" / "2021" / "a.jsonl", 1)
    sources = [
        SourceSection(input=str(tmp_path / "de" / "2021" / "a.jsonl")),
        SourceSection(input=str(tmp_path / "d*" / "**" / "*.jsonl")),
        SourceSection(input=str(tmp_path / "de" / "20*" / "*")),
    ]
    (task,) = plan_tasks(sources, None)
    assert [piece.name for piece in task] == ["0/a.jsonl", "1/de/2020/a.jsonl"]


def test_pieces_are_plain_values():
    piece = Split("gc4", "a.tar.gz", None, "0/a.tar.gz", 3, 16)
    assert pickle.loads(pickle.dumps(piece)) == piece
    assert Split(**json.loads(json.dumps(asdict(piece)))) == piece


def test_without_sources_there_is_nothing_to_plan():
    with pytest.raises(UserError, match="no sources: name the text"):
        plan_tasks([], None)


def test_every_source_must_match_a_file_before_any_work(tmp_path: Path):
    file(tmp_path / "a.jsonl", 1)
    with pytest.raises(UserError, match=r"none\*\.jsonl matches no file"):
        plan(tmp_path / "a.jsonl", tmp_path / "none*.jsonl")
