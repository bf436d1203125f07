import pytest

from clp_jax.errors import UserError
from clp_jax.files import new_file, new_folder, read_json, write_json


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


def test_json(tmp_path):
    write_json(tmp_path / "x.json", {"ü": 1})
    assert read_json(tmp_path / "x.json") == {"ü": 1}
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x.json is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match=r"y.json is missing"):
        read_json(tmp_path / "y.json")
