"""Files cut into records: in parts, across the edges of buffers, up to where they are broken."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from clp_jax.data.io import formats
from clp_jax.data.io.formats import ARCHIVE, BLANK_LINES, DICTIONARIES, LINES, ROWS, WHOLE, Format
from clp_jax.data.io.readers import BrokenRecord, read_split
from clp_jax.data.io.splits import Split

TEXTS = [f"Text {number} – größer als »{number - 1}«\nund zwei\tZeilen" for number in range(900)]


def ccnet(text: str) -> dict:
    return {"url": "http://x.de/{'url'}", "raw_content": text, "nlines": 2, "bucket": "head"}


def tar(*members: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        folder = tarfile.TarInfo("data_head")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number, member in enumerate(members):
            info = tarfile.TarInfo(f"data_head/de_head_{number:04d}_2015-48.txt")
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return sink.getvalue()


def parquet(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": range(len(texts)), "text": texts}), sink, row_group_size=350)
    return sink.getvalue().to_pybytes()


def printed(texts: list[str]) -> bytes:
    """What a corpus of dictionaries looks like that Python printed one after the other."""
    return "".join(str(ccnet(text)) for text in texts).encode()


def cut(form: Format, data: bytes) -> list:
    stream = io.BufferedReader(io.BytesIO(data))
    return [(number, form.parse(raw)) for number, raw in form.split(stream, list)]


def read(kind: str, file: Path, part: int = 0, parts: int = 1) -> list:
    return list(read_split(Split(kind, str(file), None, "0/x", part, parts)))


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def archive(texts: list[str]) -> bytes:
    return tar(printed(texts[:400]), printed(texts[400:]))


FILES: dict[str, tuple[str, Callable[[list[str]], bytes]]] = {
    "a.jsonl": ("files", lines),
    "a.parquet": ("files", parquet),
    "a.txt": ("oscar-2019", lambda texts: "\n\n".join(texts).encode()),
    "b.txt": ("gc4", printed),
    "a.tar": ("gc4", archive),
    "c.txt": ("files", lambda texts: texts[0].encode()),
}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_the_parts_of_a_file_are_disjoint_and_together_everything(
    tmp_path: Path, name: str, suffix: str
):
    kind, write = FILES[name]
    compress = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    file = tmp_path / (name + suffix)
    file.write_bytes(compress[suffix](write(TEXTS)))
    whole = read(kind, file)
    assert [document.text for document in whole] == (TEXTS if name != "c.txt" else TEXTS[:1])
    assert len({document.id for document in whole}) == len(whole)
    for parts in (2, 3):
        shares = [read(kind, file, part, parts) for part in range(parts)]
        together = {document.id: document for share in shares for document in share}
        assert sum(map(len, shares)) == len(together)
        assert together == {document.id: document for document in whole}


@pytest.mark.parametrize(
    ("kind", "name", "data"),
    [
        ("files", "a.jsonl", b'{"text": "a"}\n' * 300 + b"broken\n" + b'{"text": "a"}\n' * 300),
        ("gc4", "a.txt", printed(["a"] * 300) + b"{'url': broken}" + printed(["a"] * 300)),
    ],
)
def test_the_records_of_other_parts_are_not_parsed(
    tmp_path: Path, kind: str, name: str, data: bytes
):
    file = tmp_path / name
    file.write_bytes(data)
    assert [len(read(kind, file, part, 2)) for part in range(2)] == [256 + 89, 256]
    assert not any(isinstance(found, BrokenRecord) for found in read(kind, file, 0, 2))
    assert sum(isinstance(found, BrokenRecord) for found in read(kind, file, 1, 2)) == 1


def test_lines_are_numbered_as_an_editor_does():
    assert cut(LINES, b'{"a": 1}\n\n \r\n{"a": 2}') == [(1, {"a": 1}), (4, {"a": 2})]


def test_texts_between_blank_lines_are_numbered_by_their_first_line():
    data = b"\n\neins\nzwei\n\n \n\ndrei\n\nvier\r\nf\xc3\xbcnf"
    assert cut(BLANK_LINES, data) == [(3, ("eins\nzwei",)), (8, ("drei",)), (10, ("vier\r\nfünf",))]


def test_a_byte_order_mark_is_not_text():
    assert cut(WHOLE, b"\xef\xbb\xbfHallo\n") == [(1, ("Hallo\n",))]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 16])
@pytest.mark.parametrize("between", ["", "\n", "\r\n"])
@pytest.mark.parametrize("print_record", [str, json.dumps], ids=["python", "json"])
def test_dictionaries_are_cut_wherever_a_buffer_ends(
    monkeypatch: pytest.MonkeyPatch, chunk: int, between: str, print_record
):
    records = [ccnet(f"{{'url': 'nicht'}}{{'url': \"so\"}} {number} 'ä' 🙂") for number in range(9)]
    monkeypatch.setattr(formats, "_CHUNK", chunk)
    data = between.join(map(print_record, records)).encode() + between.encode()
    assert cut(DICTIONARIES, data) == list(enumerate(records, 1))
    assert cut(ARCHIVE, tar(data, data)) == list(enumerate([*records, *records], 1))


def test_a_broken_dictionary_does_not_spoil_its_neighbours(tmp_path: Path):
    whole = printed(["eins", "zwei", "drei"])
    (tmp_path / "a.txt").write_bytes(whole.replace(b"'zwei'", b"'zwei"))
    eins, zwei, drei = read("gc4", tmp_path / "a.txt")
    assert (eins.text, drei.text) == ("eins", "drei")
    assert "record 2: neither JSON nor a Python dictionary" in str(zwei)


def test_only_the_columns_in_question_are_read():
    data = parquet(["a", "b"])
    stream = io.BufferedReader(io.BytesIO(data))
    rows = [ROWS.parse(raw) for _, raw in ROWS.split(stream, lambda names: names[1:])]
    assert rows == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "b.txt", "a.tar", "a.txt"])
def test_records_before_a_broken_stream_are_kept(tmp_path: Path, name: str, suffix: str):
    kind, write = FILES[name]
    texts = TEXTS * 4
    data = write(texts)
    frames = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    file = tmp_path / (name + suffix)
    file.write_bytes(b"".join(map(compress, frames))[:-9])
    *kept, broken = read(kind, file)
    assert str(broken).startswith(f"{file} cannot be read")
    assert [document.text for document in kept] == texts[: len(kept)]
    lost_bytes = (1 - len(kept) / len(texts)) * len(data)
    assert lost_bytes < 80_000 < len(data) / 2


def test_one_long_record_takes_time_in_proportion(monkeypatch: pytest.MonkeyPatch):
    searched = []

    class Counting:
        def finditer(self, buffer: bytearray, start: int):
            searched.append(len(buffer) - start)
            return formats.re.compile(rb"(?!)").finditer(buffer, start)

    monkeypatch.setattr(formats, "_PYTHON_SEAM", Counting())
    data = b"x" * (20 << 16)
    cut(Format("record", DICTIONARIES.split, len), data)
    assert sum(searched) < 1.01 * len(data)
