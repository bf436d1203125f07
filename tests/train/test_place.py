"""Runs in a bucket, which is played by a folder here: what is written there must be enough."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clp_jax.checkpoint import orbax
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.train import place
from clp_jax.train.loop import train_model
from clp_jax.train.place import RunPlace

from .conftest import leaves, on_step, without_times


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that is the bucket ``gs://bucket``; the cache is here, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def path(address):
        return tmp_path / "bucket" / address.removeprefix("gs://bucket/")

    for module in (place, orbax):
        monkeypatch.setattr(module, "epath", SimpleNamespace(Path=path))
    return tmp_path / "bucket"


class Killed(BaseException):
    """What no part of the program catches."""


def kill(batch):
    raise Killed


@pytest.mark.slow
def test_a_run_goes_on_from_the_bucket_alone(settings, bucket, monkeypatch, tmp_path):
    whole = train_model(RunConfig.from_dict(settings)).folder
    settings["train"]["out"] = "gs://bucket/de/run"
    config = RunConfig.from_dict(settings)
    with monkeypatch.context() as patch:
        on_step(patch, 3, kill)
        with pytest.raises(Killed):
            train_model(config)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=r"^gs://bucket/de/run exists already: add --resume"):
        train_model(config)

    resumed = train_model(config, resume=True)
    names = {file.name for file in whole.iterdir()}
    assert {file.name for file in (bucket / "de" / "run").iterdir()} == names
    for folder in (resumed.folder, bucket / "de" / "run"):
        assert without_times(folder) == without_times(whole)
    for ours, theirs in zip(leaves(bucket / "de" / "run"), leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (resumed.folder / "checkpoints").exists()


def test_a_folder_on_a_disk_is_used_where_it_is(tmp_path):
    there = RunPlace(str(tmp_path / "run"))
    there.fetch()
    there.publish()
    assert there.folder == Path(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImportError("gcsfs"), r"gs://bucket/run needs gcsfs: install clp"),
        (PermissionError("no entry"), r"gs://bucket/run cannot be reached \(PermissionError: no "),
    ],
)
def test_a_bucket_that_cannot_be_read_is_told(bucket, monkeypatch, error, sentence):
    def path(address):
        raise error

    monkeypatch.setattr(place, "epath", SimpleNamespace(Path=path))
    with pytest.raises(UserError, match=sentence):
        RunPlace("gs://bucket/run").fetch()
