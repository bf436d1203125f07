import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from clp_jax.data import read_documents
from clp_jax.errors import UserError

TEXTS = ["Grüße aus Köln", "zwei\nZeilen", "日本語 🙂"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def json_lines(texts: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({"id": 7, field: text}) + "\n" for text in texts).encode()


def parquet(texts: list, field: str = "text") -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [7] * len(texts), field: texts}), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def read(*inputs: object, text_field: str = "text") -> list[str]:
    return list(read_documents([str(item) for item in inputs], text_field))


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", "\n".join(TEXTS).encode(), ["\n".join(TEXTS)]),
        ("a.jsonl", json_lines(TEXTS), TEXTS),
        ("a.parquet", parquet(TEXTS), TEXTS),
    ],
)
def test_every_format_and_compression_gives_the_texts(
    tmp_path: Path, name: str, data: bytes, expected: list[str], suffix: str
):
    file = tmp_path / (name + suffix)
    file.write_bytes(COMPRESS[suffix](data))
    assert read(file) == expected


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_of_several_compressed_parts_are_read_to_the_end(tmp_path: Path, suffix: str):
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(b"".join(COMPRESS[suffix](json_lines([text])) for text in TEXTS))
    assert read(file) == TEXTS


def test_another_field_may_hold_the_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS, "content"))
    (tmp_path / "b.parquet").write_bytes(parquet(TEXTS, "content"))
    assert read(tmp_path / "*", text_field="content") == TEXTS + TEXTS


def test_globs_are_read_by_name_at_any_depth_and_each_file_once(tmp_path: Path):
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "deep/d.jsonl", ".hidden.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(json_lines([name]) if name.endswith("jsonl") else name.encode())
    assert read(tmp_path / "**" / "*.txt") == ["a.txt", "b.txt", "deep/er/c.txt"]
    assert read(tmp_path / "**") == ["a.txt", "b.txt", "deep/d.jsonl", "deep/er/c.txt"]
    assert read(tmp_path / "b.txt", tmp_path / "*.txt") == ["b.txt", "a.txt"]


def test_a_name_with_glob_characters_is_taken_as_it_is(tmp_path: Path):
    (tmp_path / "part[1].txt").write_text("eins")
    assert read(tmp_path / "part[1].txt") == ["eins"]


def test_byte_order_marks_blank_lines_and_blank_texts_are_left_out(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfHallo")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "Du"}\n\n{"text": " \\n"}\r\n')
    assert read(tmp_path / "*") == ["Hallo", "Du"]


def test_documents_are_streamed(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(json_lines(["gut"]) + b"broken\n")
    documents = read_documents([str(file)])
    assert next(documents) == "gut"
    with pytest.raises(UserError, match="line 2"):
        next(documents)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"gut\nschlecht \xff\n", r"a\.txt, line 2: not UTF-8"),
        ("a.jsonl", json_lines(["x"]) + b'{"text": "\xff"}\n', r"a\.jsonl, line 2: not UTF-8"),
        ("a.jsonl", json_lines(["x"]) + b'{"text": "', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', r"line 1: no field text, only body"),
        ("a.jsonl", b'{"text": 3}\n', r"line 1: text is int, not a string"),
        ("a.jsonl", b'["x"]\n', r"line 1: not a JSON object with the key text"),
        ("a.jsonl", b'{"text": "\\ud83d"}\n', r"line 1: text holds half of a surrogate pair"),
        ("a.jsonl", b"", r"a\.jsonl: no document holds any text"),
        ("a.jsonl", json_lines(["", " "]), r"a\.jsonl: no document holds any text"),
        ("a.parquet", parquet(["x"], "body"), r"a\.parquet: no field text, only id, body"),
        ("a.parquet", parquet(["x", None]), r"row 2: text is NoneType, not a string"),
        ("a.parquet", parquet([b"x", b"y"]), r"row 1: text is bytes, not a string"),
        ("a.parquet", parquet(TEXTS)[:-9], r"a\.parquet cannot be read"),
        ("a.parquet.gz", b"PAR1", r"a\.parquet\.gz cannot be read"),
        ("a.jsonl.gz", gzip.compress(json_lines(TEXTS))[:-9], r"a\.jsonl\.gz cannot be read"),
        ("a.jsonl.gz", json_lines(TEXTS), r"a\.jsonl\.gz cannot be read"),
        ("a.txt.zst", COMPRESS[".zst"](b"Hallo" * 999)[:-4], r"a\.txt\.zst cannot be read"),
        ("a.tar.gz", b"", r"a\.tar\.gz has an unknown suffix: .*\.jsonl"),
        ("a.csv", b"", r"a\.csv has an unknown suffix"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_invalid_utf8_inside_parquet_is_told_with_its_row(tmp_path: Path):
    binary = pa.array([b"gut", b"\xff"])
    text = pa.Array.from_buffers(pa.string(), 2, binary.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet, row 2: not UTF-8"):
        read(tmp_path / "a.parquet")


def test_names_are_checked_before_anything_is_read(tmp_path: Path):
    (tmp_path / "a.txt").write_text("gut")
    with pytest.raises(UserError, match=r"nothing\.txt matches no file"):
        read_documents([str(tmp_path / "a.txt"), str(tmp_path / "nothing.txt")])
    with pytest.raises(UserError, match=r"is a folder: name its files, for example .*/\*\.jsonl"):
        read_documents([str(tmp_path)])
    with pytest.raises(UserError, match=r"write hf://NAME\[:CONFIG\]\[@SPLIT\]"):
        read_documents(["hf://@train"])


@pytest.fixture
def hub_dataset(tmp_path: Path) -> Path:
    """A data set in the hub's layout, with two configurations and two splits."""
    folder = tmp_path / "oscar"
    folder.mkdir()
    configs = []
    for config in ("de", "en"):
        splits = {split: f"{config}-{split}.jsonl" for split in ("train", "test")}
        for split, name in splits.items():
            (folder / name).write_bytes(json_lines([f"{config} {split}", "x"]))
        files = [{"split": split, "path": name} for split, name in splits.items()]
        configs.append({"config_name": config, "data_files": files, "default": config == "de"})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return folder


@pytest.mark.parametrize(
    ("choice", "first"),
    [("", "de train"), (":en", "en train"), ("@test", "de test"), (":en@test", "en test")],
)
def test_hub_data_sets_are_read_by_configuration_and_split(
    hub_dataset: Path, choice: str, first: str
):
    assert read(f"hf://{hub_dataset}{choice}") == [first, "x"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [(":fr", "'fr' not found"), ("@dev", "Bad split: dev"), ("/none", "cannot be read")],
)
def test_what_is_wrong_with_a_hub_data_set_is_told(hub_dataset: Path, choice: str, message: str):
    with pytest.raises(UserError, match=message):
        read(f"hf://{hub_dataset}{choice}")


def test_a_hub_data_set_without_the_field_is_told(hub_dataset: Path):
    with pytest.raises(UserError, match="row 1: no field content, only id, text"):
        read(f"hf://{hub_dataset}", text_field="content")


def test_hub_data_sets_are_streamed_and_run_no_code(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(
        "datasets.load_dataset",
        lambda *names, **options: calls.append((names, options)) or [{"text": "Hallo"}],
    )
    assert read("hf://oscar-corpus/OSCAR-2301:de@train") == ["Hallo"]
    names = ("oscar-corpus/OSCAR-2301", "de")
    assert calls == [(names, {"split": "train", "streaming": True})]
