"""Data sets of the hub: shards, and what is told when one cannot be read."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from clp_jax.data.config import SourceSection
from clp_jax.data.io.readers import read_split
from clp_jax.data.io.splits import plan_tasks
from clp_jax.errors import UserError


@pytest.fixture
def data_set(tmp_path: Path) -> str:
    """A data set of three files in the hub's layout."""
    folder = tmp_path / "fineweb"
    folder.mkdir()
    for shard in range(3):
        records = [{"text": f"{shard}-{row}", "url": "http://a.de"} for row in range(4)]
        (folder / f"{shard}.jsonl").write_text("\n".join(map(json.dumps, records)))
    configs = [{"config_name": "deu_Latn", "data_files": "*.jsonl"}]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return f"hf://{folder}:deu_Latn"


def test_each_shard_is_a_task(data_set: str):
    tasks = plan_tasks([SourceSection(input=data_set, kind="fineweb-2")], None)
    assert [[(piece.part, piece.parts) for piece in task] for task in tasks] == [
        [(0, 3)],
        [(1, 3)],
        [(2, 3)],
    ]
    documents = [document for (piece,) in tasks for document in read_split(piece)]
    expected = [f"{shard}-{row}" for shard in range(3) for row in range(4)]
    assert [document.text for document in documents] == expected
    assert documents[4].id == "0/fineweb:deu_Latn/1/1"
    assert documents[4].metadata == {"source": "fineweb-2", "tags": [], "url": "http://a.de"}
    assert len({document.id for document in documents}) == 12


def test_with_a_limit_the_shards_are_read_in_order(data_set: str):
    ((piece,),) = plan_tasks([SourceSection(input=data_set)], 5)
    assert [document.text for document in read_split(piece)][:6] == [
        "0-0",
        "0-1",
        "0-2",
        "0-3",
        "1-0",
        "1-1",
    ]


def http_error(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    return kind("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


def gated_by_cause() -> Exception:
    error = OSError("no such file")
    error.__cause__ = http_error(GatedRepoError, 403)
    return error


@pytest.mark.parametrize(
    "error",
    [
        DatasetNotFoundError("Dataset 'uonlp/CulturaX' is a gated dataset on the Hub."),
        gated_by_cause(),
        http_error(HfHubHTTPError, 401),
        http_error(HfHubHTTPError, 403),
    ],
)
def test_a_gated_data_set_says_where_to_accept_its_terms(
    monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(UserError) as told:
        plan_tasks([SourceSection(input="hf://uonlp/CulturaX:de", kind="culturax")], 5)
    assert str(told.value) == (
        "hf://uonlp/CulturaX:de cannot be accessed: accept its terms on "
        "https://huggingface.co/datasets/uonlp/CulturaX and log in with `hf auth login`."
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(RepositoryNotFoundError, 401), r"hf://oscar cannot be read \(no\)"),
        (http_error(HfHubHTTPError, 500), r"hf://oscar cannot be read \(no\)"),
        (
            RuntimeError("Dataset scripts are no longer supported, but found oscar.py"),
            "is a loading script, not data: download its files with `hf download .* oscar`",
        ),
    ],
)
def test_other_failures_are_reported_as_they_are(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(UserError, match=message):
        plan_tasks([SourceSection(input="hf://oscar", kind="oscar-2019")], None)


def test_a_failure_in_the_middle_is_no_broken_record(monkeypatch: pytest.MonkeyPatch):
    def rows():
        yield {"text": "gut"}
        raise OSError("connection lost")

    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows())
    monkeypatch.setattr("clp_jax.data.io.splits.hub_shards", lambda _: 1)
    ((piece,),) = plan_tasks([SourceSection(input="hf://a/b")], None)
    documents = read_split(piece)
    assert next(documents).text == "gut"
    with pytest.raises(UserError, match=r"hf://a/b cannot be read \(connection lost\)"):
        next(documents)
