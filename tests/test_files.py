import errno
import math
import os
import shutil
from pathlib import Path

import pytest

from clp_jax.data.config import SourceSection
from clp_jax.data.corpus.store import Corpus
from clp_jax.data.io.splits import whole_splits
from clp_jax.data.prepare import prepare_corpus
from clp_jax.errors import UserError
from clp_jax.files import (
    is_address,
    local_path,
    new_file,
    new_folder,
    read_json,
    remove_scratch,
    scratch_folder,
    write_json,
    write_text,
)
from clp_jax.quickstart.run import run_quickstart


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with new_folder(tmp_path / "a" / "out") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a" / "out").exists()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["out"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "f"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "empty" / "x").exists()
    with pytest.raises(UserError, match="exists already"), new_folder(tmp_path / "empty"):
        pass


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "lost link"])
def test_only_regular_files_are_replaced(tmp_path, kind):
    place = tmp_path / "place"
    (tmp_path / "elsewhere").write_text("kept")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("elsewhere" if kind == "link" else "nowhere")
    before = place.lstat()
    with pytest.raises(UserError, match="exists and is not a regular file"):
        write_json(place, {})
    if kind != "folder":
        with pytest.raises(UserError, match="exists already"), new_folder(place):
            pass
    assert (place.lstat().st_mode, place.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert (tmp_path / "elsewhere").read_text() == "kept"


@pytest.mark.parametrize("write", [new_folder, new_file])
def test_a_place_where_nothing_can_be_is_refused_at_once(tmp_path, write, monkeypatch):
    (tmp_path / "file").write_text("x")
    places = {
        "file/a/b": "file is not a folder",
        "a" * 250: r"\(File name too long\)",
        "b" * 300 + "/c": r"\(File name too long\)",
    }
    for name, reason in places.items():
        with pytest.raises(UserError, match=f"cannot be created.*{reason}"), write(tmp_path / name):
            pass
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="is not writable"), write(tmp_path / "x"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", [".", "/"])
def test_the_working_folder_is_no_new_one(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="exists already"), new_folder(place):
        pass


@pytest.mark.parametrize("place", ["gs://b/x", Path("gs://b/x"), "file:///x", "s3://b"])
def test_an_address_is_no_path_on_a_disk(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (local_path, lambda out: new_folder(out).__enter__(),
                lambda out: new_file(out).__enter__(), Corpus.open,
                lambda out: prepare_corpus(["x.txt"], None, out),
                lambda out: run_quickstart(out),
                lambda data: whole_splits([SourceSection(input=str(data))])):  # fmt: skip
        with pytest.raises(UserError, match="is an address, but this must be a path on a disk"):
            use(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["/a/b:/c", "a/gs:/b", "C:/x", "runs/x", Path("/x")])
def test_a_path_is_no_address(place):
    assert not is_address(place)


def test_json(tmp_path):
    write_json(tmp_path / "x.json", {"ü": 1})
    assert read_json(tmp_path / "x.json") == {"ü": 1}
    with pytest.raises(UserError, match=r"y.json is missing"):
        read_json(tmp_path / "y.json")
    write_json(tmp_path / "x.json", {"a": [math.nan, (-math.inf, 1.5)]})
    assert read_json(tmp_path / "x.json") == {"a": [None, [None, 1.5]]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        (b"\xff{}", "is not valid JSON"),
        ("[1]", "must hold a JSON object, not a list"),
        ("null", "must hold a JSON object, not a single value"),
        ("[" * 100_000, "is nested more than 64 levels deep"),
        ("[" * 200 + "]" * 200, "is nested more than 64 levels deep"),
        ('{"a": ' * 200 + "1" + "}" * 200, "is nested more than 64 levels deep"),
        ('{"a": ' + "1" * 5000 + "}", "is not valid JSON"),
        ('{"a": [' + "1" * 50 + "]}", "an integer has more than 128 bits"),
        ('{"a": NaN}', "a number is NaN or infinite"),
        ('{"a": {"b": 1e999}}', "a number is NaN or infinite"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
    ],
)
def test_unusable_json_is_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "x.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"x\.json {sentence}|x\.json .*{sentence}"):
        read_json(file)


def test_untrusted_json(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"model_max_length": 1000000000000000019884624838656, "a": 1, "a": 1}')
    assert read_json(file) == {"model_max_length": 1000000000000000019884624838656, "a": 1}
    file.write_text("[1]")
    assert read_json(file, list) == [1]


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", "."):
        with pytest.raises(UserError, match="is not a regular file"):
            read_json(tmp_path / name)
    monkeypatch.setattr("clp_jax.files.MAX_JSON_BYTES", 1 << 20)
    (tmp_path / "x.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(UserError, match="is larger than 1 MiB"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_with_its_name(tmp_path, number):
    def fail():
        raise OSError(number, os.strerror(number))  # A write names no file.

    told = r"out cannot be written: no space is left on the disk mounted at /"
    with pytest.raises(UserError, match=told), new_folder(tmp_path / "out"):
        fail()
    with pytest.raises(UserError, match=told), new_file(tmp_path / "out"):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def synced(monkeypatch):
    """The names of what is brought onto the disk, in order, with those of what is there then."""
    names = []

    def note(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        names.append((path.name, sorted(p.name for p in path.parent.iterdir())))
        fsync(descriptor)

    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", note)
    return names


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, synced):
    write_text(tmp_path / "x", "1")
    [(scratch, before), (folder, _)] = synced
    assert "x" not in before
    assert (scratch in before, folder) == (True, tmp_path.name)


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, synced):
    with new_folder(tmp_path / "out") as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "x").write_text("1")
    assert {name for name, _ in synced[:3]} == {"x", "inner", scratch.name}
    assert "out" not in {name for _, names in synced[:3] for name in names}
    assert synced[3][0] == tmp_path.name


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path, tmp_path_factory):
    made = tmp_path_factory.mktemp("made")
    (made / "x").write_text("theirs")
    with pytest.raises(UserError, match="exists already"), new_folder(tmp_path / "out"):
        shutil.copytree(made, tmp_path / "out")
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "x"]


def test_unfinished_files_can_be_removed_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file"), new_file(tmp_path / "x") as file:  # noqa: PT012
        file.write_text("1")
        remove_scratch()
    with scratch_folder() as folder:
        (folder / "x").write_text("1")
    assert not folder.exists()
    assert not list(tmp_path.iterdir())
