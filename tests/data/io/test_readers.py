import gzip
import io
import json
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard
from datatrove.data import Document

from clp_jax.data.config import SourceSection
from clp_jax.data.io.formats import LINES
from clp_jax.data.io.readers import NoText, Read, read_documents
from clp_jax.data.io.splits import plan_tasks
from clp_jax.errors import UserError

TEXTS = ["Grüße aus Köln", "zwei\nZeilen", "日本語 🙂"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": partial(gzip.compress, mtime=0),
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


def test_byte_order_marks_and_blank_lines_and_texts_are_left_out(tmp_path: Path):
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
    file.write_bytes(json_lines(["gut"] * 100_000))
    with file.open("rb") as stream:
        next(LINES.split(stream, list))
        assert stream.tell() < file.stat().st_size


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
        ("a.jsonl.gz", COMPRESS[".gz"](json_lines(TEXTS))[:-9], r"a\.jsonl\.gz cannot be read"),
        ("a.jsonl.gz", json_lines(TEXTS), r"a\.jsonl\.gz cannot be read"),
        ("a.txt.zst", COMPRESS[".zst"](b"Hallo" * 999)[:-4], r"a\.txt\.zst cannot be read"),
        ("a.tar.gz", b"", r"a\.tar\.gz has an unknown suffix: .*\.jsonl"),
        ("a.csv", b"", r"a\.csv has an unknown suffix"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_invalid_utf8_inside_parquet_is_reported_with_its_row(tmp_path: Path):
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
def test_faults_of_a_hub_data_set_are_reported(hub_dataset: Path, choice: str, message: str):
    with pytest.raises(UserError, match=message):
        read(f"hf://{hub_dataset}{choice}")


def test_a_hub_data_set_without_the_field_is_reported(hub_dataset: Path):
    source = SourceSection(input=f"hf://{hub_dataset}", text_field="content")
    step = Read(plan_tasks([source], None), 9, None, hub_dataset / "samples")
    with pytest.raises(NoText, match="row 1: no field content, only id, text"):
        list(step.run())


def test_hub_data_sets_are_streamed_and_run_no_code(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(
        "datasets.load_dataset",
        lambda *names, **options: calls.append((names, options)) or [{"text": "Hallo"}],
    )
    assert read("hf://oscar-corpus/OSCAR-2301:de@train") == ["Hallo"]
    names = ("oscar-corpus/OSCAR-2301", "de")
    assert calls == [(names, {"split": "train", "streaming": True})]


def reader(
    folder: Path,
    *inputs: object,
    max_broken: int = 0,
    limit: int | None = None,
    kind: str = "files",
) -> Read:
    sources = [SourceSection(input=str(item), kind=kind) for item in inputs]
    return Read(plan_tasks(sources, limit), max_broken, limit, folder / "samples")


def total(step: Read, label: str) -> int:
    return int(step.stats[label].total)


def test_the_step_gives_documents_with_ids_and_their_source(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS))
    (tmp_path / "b.txt").write_text("Hallo")
    step = pickle.loads(pickle.dumps(reader(tmp_path, tmp_path / "*")))
    metadata = {"source": "files", "tags": []}
    assert list(step.run()) == [
        *(Document(t, f"0/a.jsonl/{n}", metadata=metadata) for n, t in enumerate(TEXTS, 1)),
        Document("Hallo", "0/b.txt/1", metadata=metadata),
    ]
    assert total(step, "doc_len") == sum(map(len, TEXTS)) + 5
    assert not (tmp_path / "samples").exists()


def test_blank_documents_are_counted(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(["a", "", " \n", "b"]))
    step = reader(tmp_path, tmp_path / "a.jsonl")
    assert [document.text for document in step.run()] == ["a", "b"]
    assert total(step, "empty") == 2


def test_a_task_reads_its_own_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(7):
        (tmp_path / f"{number}.jsonl").write_bytes(json_lines([f"{number}"] * 10))
    monkeypatch.setattr("clp_jax.data.io.splits._TASK_BYTES", 400)
    step = reader(tmp_path, tmp_path / "*")
    ranks = [[document.id for document in step.run(rank=rank)] for rank in range(len(step.tasks))]
    assert len(ranks) > 2
    assert len(set().union(*ranks)) == sum(map(len, ranks)) == 70


def test_a_limit_counts_documents_over_all_files(tmp_path: Path):
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_bytes(json_lines(["", name, name]))
    step = reader(tmp_path, tmp_path / "*", limit=3)
    assert [document.text for document in step.run()] == ["a", "a", "b"]


BROKEN_LINES = {
    "not JSON": b'{"text": "a"',
    "not JSON (maximum recursion": b"[" * 100_000,
    "not UTF-8 (invalid start byte)": b'{"text": "\xff"}',
    "not a JSON object": b'"text"',
    "no field text, only body": b'{"body": "a"}',
    "text is NoneType, not a string": b'{"text": null}',
    "text holds half of a surrogate pair": b'{"text": "\\ud83d"}',
}


def test_broken_records_are_skipped_counted_and_sampled(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join([b'{"text": "gut"}', *BROKEN_LINES.values(), b'{"text": "auch"}']))
    step = reader(tmp_path, file, max_broken=len(BROKEN_LINES))
    assert [document.text for document in step.run()] == ["gut", "auch"]
    assert total(step, "broken") == len(BROKEN_LINES)
    samples = json.loads((tmp_path / "samples" / "broken" / "00000.json").read_text())
    for line, (sample, reason) in enumerate(zip(samples, BROKEN_LINES, strict=False), 2):
        assert sample["id"] == f"a.jsonl line {line}"
        assert sample["reason"].startswith(reason)
    assert [len(sample["text"]) for sample in samples[:2]] == [13, 200]
    assert len(samples) == 5


@pytest.mark.parametrize("reason", BROKEN_LINES)
def test_one_broken_record_too_many_ends_the_run(tmp_path: Path, reason: str):
    file = tmp_path / "a.jsonl"
    file.write_bytes(json_lines(["gut"]) + b"broken\n" + BROKEN_LINES[reason] + b"\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not JSON .*only 0 broken records"):
        list(reader(tmp_path, file).run())
    with pytest.raises(UserError) as told:
        list(reader(tmp_path, file, max_broken=1).run())
    assert str(told.value).startswith(f"{file}, line 3: {reason}")
    assert "only 1 broken records per file are skipped" in str(told.value)


def test_broken_records_are_counted_for_each_file(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(json_lines(["gut"]) + b"broken\n")
    step = reader(tmp_path, tmp_path / "*", max_broken=1)
    assert len(list(step.run())) == 2
    assert total(step, "broken") == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_first_record_without_the_field_is_never_skipped(tmp_path: Path, name: str):
    data = {"a.jsonl": json_lines, "a.parquet": parquet}[name](["x", "y"], "body")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="no field text, only id, body: name the one that holds"):
        list(reader(tmp_path, tmp_path / name, max_broken=9).run())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", json_lines(["x"])),
        ("a.jsonl.zst", json_lines(["x"])),
        ("a.parquet", parquet(TEXTS)[:-9]),
        ("a.parquet.gz", COMPRESS[".gz"](b"PAR1")),
        ("a.json", b'[{"text": '),
    ],
)
def test_a_file_that_cannot_be_read_is_no_broken_record(tmp_path: Path, name: str, data: bytes):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.txt").write_text("gut")
    with pytest.raises(UserError, match=rf"{name} cannot be read \(.*\)\.$"):
        list(reader(tmp_path, tmp_path / "*", max_broken=100).run())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", COMPRESS[".gz"](json_lines(["eins", "zwei"]))[:-9]),
        ("a.jsonl.zst", COMPRESS[".zst"](json_lines(["eins"])) + b"(\xb5/\xfd"),
        ("a.jsonl.gz", COMPRESS[".gz"](json_lines(["eins"])) + b"?" + COMPRESS[".gz"](b"{}")),
        ("a.json", b'[{"text": "eins"}, {"text": '),
    ],
)
def test_a_stream_that_breaks_off_counts_as_one_record(tmp_path: Path, name: str, data: bytes):
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.txt").write_text("gut")
    step = reader(tmp_path, tmp_path / "*", max_broken=1)
    texts = [document.text for document in step.run()]
    assert (texts[0], texts[-1]) == ("eins", "gut")
    assert total(step, "broken") == 1
    with pytest.raises(UserError, match=r"cannot be read beyond \w+ [12] .*, and only 0 broken"):
        list(reader(tmp_path, tmp_path / name).run())


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_broken_archive_counts_as_one_record(tmp_path: Path, keep: float):
    data = b"".join(
        str({"url": "http://a.de", "raw_content": "x" * 500}).encode() for _ in range(999)
    )
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    (tmp_path / "a.tar").write_bytes(sink.getvalue()[: int(keep * len(data))])
    step = reader(tmp_path, tmp_path / "a.tar", max_broken=1, kind="gc4")
    assert 0 < len(list(step.run())) < 999 * keep
    assert total(step, "broken") == 1


def test_a_file_that_cannot_be_opened_is_never_skipped(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(TEXTS))
    step = reader(tmp_path, tmp_path / "a.jsonl", max_broken=9)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(UserError, match=r"a\.jsonl cannot be read .*No such file"):
        list(step.run())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("zeros.jsonl.gz", COMPRESS[".gz"](json_lines(TEXTS)) + bytes(512)),
        ("garbage.jsonl.gz", COMPRESS[".gz"](json_lines(TEXTS)) + b"garbage"),
        ("members.jsonl.gz", b"".join(COMPRESS[".gz"](json_lines([text])) for text in TEXTS)),
        ("frames.jsonl.zst", b"".join(COMPRESS[".zst"](json_lines([text])) for text in TEXTS)),
        ("list.json", json.dumps([{"text": text} for text in TEXTS]).encode()),
        ("pretty.json", json.dumps([{"text": text} for text in TEXTS], indent=2).encode()),
        ("mark.json", b"\xef\xbb\xbf\n" + json.dumps([{"text": text} for text in TEXTS]).encode()),
    ],
)
def test_compressions_and_listings(tmp_path: Path, name: str, data: bytes, monkeypatch):
    monkeypatch.setattr("clp_jax.data.io.formats._CHUNK", 7)
    (tmp_path / name).write_bytes(data)
    assert [*read_documents([str(tmp_path / name)])] == [text for text in TEXTS if text.strip()]


def test_the_longest_window_of_zstd_is_read(tmp_path: Path):
    sink = io.BytesIO()
    settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=1)
    packer = zstandard.ZstdCompressor(compression_params=settings)
    with packer.stream_writer(sink, closefd=False) as writer:
        writer.write(json_lines(TEXTS))
    (tmp_path / "a.jsonl.zst").write_bytes(sink.getvalue())
    (tmp_path / "b.jsonl").write_bytes(json_lines(TEXTS))
    a, b = ([*read_documents([str(tmp_path / name)])] for name in ("a.jsonl.zst", "b.jsonl"))
    assert a == b


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst", "a.jsonl.gz", "a.json.gz", "a.tar.gz"])
def test_a_record_is_bounded(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clp_jax.data.io.formats.LONGEST", 1 << 20)
    zeros = {"a.json.gz": b'["' + b"0" * (5 << 20), "a.tar.gz": tar(bytes(5 << 20))}
    data = zeros.get(name, bytes(5 << 20))
    (tmp_path / name).write_bytes(COMPRESS[Path(name).suffix](data))
    kind = "gc4" if "tar" in name else "files"
    tracemalloc.start()
    told = rf"{name} cannot be read \(.* has more than 1 MiB: .*split it"
    with pytest.raises(UserError, match=told):
        list(reader(tmp_path, tmp_path / name, max_broken=100, kind=kind).run())
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


def tar(data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def test_a_column_of_parquet_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clp_jax.data.io.formats._BOMB_BYTES", 1 << 20)
    table = pa.table({"text": ["0" * (2 << 20)], "other": ["0" * (2 << 20)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(UserError, match=r"its column text unpacks to 2,\d+,\d+ bytes"):
        list(reader(tmp_path, tmp_path / "a.parquet", max_broken=100).run())


@pytest.mark.parametrize("name", ["pipe", "device", "lost"])
def test_only_regular_files_are_opened(tmp_path: Path, name: str):
    place = tmp_path / f"{name}.txt"
    match name:
        case "pipe":
            os.mkfifo(place)
        case "device":
            place.symlink_to("/dev/zero")
        case "lost":
            place.symlink_to(tmp_path / "nowhere")
    for pattern in (place, tmp_path / "*"):
        with pytest.raises(
            UserError, match=r"txt (is a pipe, a device or a broken link|matches no file)"
        ):
            [*read_documents([str(pattern)])]


def test_folders_that_contain_themselves_are_entered_once(tmp_path: Path):
    inner, linked = tmp_path / "here" / "inner", tmp_path / "linked"
    inner.mkdir(parents=True)
    linked.mkdir()
    for number in range(2):
        (inner / f"loop{number}").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "elsewhere").symlink_to(linked)
    for place in (tmp_path / "here", inner, linked):
        (place / "a.txt").write_text(place.name)
    assert sorted(read_documents([f"{tmp_path}/here/**/*.txt"])) == ["here", "inner", "linked"]
    assert sorted(read_documents([f"{tmp_path}/here/**/a.txt"])) == ["here", "inner", "linked"]
    assert [*read_documents([f"{tmp_path}/here/**/inner/*.txt"])] == ["inner"]
