"""Each corpus in the layout in which it is published, as its documentation shows it."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datatrove.data import Document

from clp_jax.data.config import PrepareConfig, SourceSection
from clp_jax.data.io.formats import RecordError
from clp_jax.data.io.readers import BrokenRecord, read_split
from clp_jax.data.io.sources import SOURCES, html_to_text, read_record
from clp_jax.data.io.splits import whole_splits
from clp_jax.errors import UserError

WARC = {
    "warc-refers-to": "<urn:uuid:83f2e1d4-5ed3-41db-86ff-f7826c4c20f9>",
    "warc-date": "2021-09-16T11:07:14Z",
    "warc-type": "conversion",
    "warc-identified-content-language": "deu",
    "content-length": "1694",
    "warc-target-uri": "https://foo.bar",
    "content-type": "text/plain",
}
OSCAR_2201 = {
    "content": "Zeile eins\nZeile zwei",
    "warc_headers": WARC,
    "metadata": {
        "identification": {"label": "de", "prob": 0.6268374},
        "annotation": ["short_sentences", "footer"],
        "sentence_identifications": [{"label": "de", "prob": 0.93925816}, None],
    },
}
OSCAR_2301 = {
    "content": "Zeile eins\nZeile zwei",
    "warc_headers": WARC,
    "metadata": {
        "identification": {"label": "de", "prob": 0.8938327},
        "harmful_pp": 4063.1814,
        "tlsh": "tlsh:T125315FF2B6088901EEA097015DB39B4600B",
        "quality_warnings": ["header", "footer"],
        "categories": ["blog", "footer"],
        "sentence_identifications": [None, None],
    },
}
CCNET = {
    "url": "http://www.example.de/seite.html",
    "date_download": "2015-11-25T12:00:00Z",
    "digest": "sha1:JZ5N5XMZ2VYIYXDOMJDGS3XKPH2LQLRA",
    "length": 23,
    "nlines": 2,
    "source_domain": "www.example.de",
    "title": "Eine \"Seite\" mit 'Titel'",
    "raw_content": "Zeile eins\nZeile 'zwei'",
    "cc_segment": "crawl-data/CC-MAIN-2015-48/segments/1448398444047.40/wet/CC-MAIN.warc.wet.gz",
    "original_nlines": 9,
    "original_length": 99,
    "language": "de",
    "language_score": 0.99,
    "perplexity": 212.3,
    "bucket": "head",
}
WIKIPEDIA = {
    "id": "1",
    "url": "https://de.wikipedia.org/wiki/Alan%20Smithee",
    "title": "Alan Smithee",
    "text": "Alan Smithee steht als Pseudonym für einen fiktiven Regisseur.",
}
CULTURAX = {
    "text": "Ein Text",
    "timestamp": "2019-04-25T12:57:54Z",
    "url": "http://a.de",
    "source": "mC4",
}
FINEWEB = {
    "text": "Ein Text",
    "id": "<urn:uuid:e5c8a4ae-8c1c-4c7e-bd1e-2a1b4c9d3e77>",
    "dump": "CC-MAIN-2013-20",
    "url": "http://a.de",
    "date": "2013-05-18T05:48:54Z",
    "file_path": "s3://commoncrawl/crawl-data/CC-MAIN-2013-20/segments/1368696381249/warc/a.warc.gz",
    "language": "deu",
    "language_score": 0.99,
    "language_script": "Latn",
    "minhash_cluster_size": 3,
    "top_langs": '{"deu_Latn_score": 0.99}',
}
MC4 = {"text": "Ein Text", "timestamp": "2019-04-25T12:57:54Z", "url": "http://a.de"}
COURT_DECISION = {
    "id": 325566,
    "slug": "lg-koln-2029-11-13-84-o-24918",
    "court": {"id": 812, "name": "Landgericht Köln", "slug": "lg-koln", "city": 446, "state": 12},
    "file_number": "84 O 249/18",
    "date": "2029-11-13",
    "type": "Urteil",
    "ecli": "ECLI:DE:LGK:2029:1113.84O249.18.00",
    "content": '<h2>Tenor</h2>\n\n<ul class="ol"><li><p>I. Die <b>Beklagte</b> wird\n'
    "verurteilt.</p></li></ul>",
}


def gz_lines(*records: dict) -> bytes:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    return gzip.compress(lines.encode(), mtime=0)


def zst_lines(*records: dict) -> bytes:
    return zstandard.ZstdCompressor().compress(gzip.decompress(gz_lines(*records)))


def parquet(*records: dict) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue().to_pybytes()


def gc4_archive(*records: dict) -> bytes:
    """As the corpus was written: str() of each dictionary, nothing between, in a tar.gz."""
    content = "".join(map(str, records)).encode()
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        member = tarfile.TarInfo("data_head/de_head_0000_2015-48.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


TAIL = {**CCNET, "bucket": "tail", "raw_content": "Schluss"}
HUB_OSCAR = {
    "id": 0,
    "text": "Zeile eins\nZeile zwei",
    "meta": {"warc_headers": WARC, "annotations": ["noisy"], "line_identifications": [None, None]},
}
LAYOUTS = [
    (
        "oscar-2019",
        "de.txt.gz",
        gzip.compress(b"eins\nzwei\n\ndrei\n\n", mtime=0),
        [("eins\nzwei",), ("drei",)],
    ),
    ("oscar-2019", "train.parquet", parquet({"id": 0, "text": "eins"}), [("eins",)]),
    (
        "oscar",
        "de_meta_part_1.jsonl.gz",
        gz_lines(
            OSCAR_2201,
            {**OSCAR_2201, "metadata": {**OSCAR_2201["metadata"], "annotation": None}},
        ),
        [
            ("Zeile eins\nZeile zwei", "https://foo.bar", "short_sentences", "footer"),
            ("Zeile eins\nZeile zwei", "https://foo.bar"),
        ],
    ),
    (
        "oscar",
        "de_meta_part_1.jsonl.zst",
        zst_lines(OSCAR_2301),
        [("Zeile eins\nZeile zwei", "https://foo.bar", "header", "footer", "blog")],
    ),
    (
        "oscar",
        "hub.parquet",
        parquet(HUB_OSCAR),
        [("Zeile eins\nZeile zwei", "https://foo.bar", "noisy")],
    ),
    (
        "gc4",
        "de_head_0000_2015-48.tar.gz",
        gc4_archive(CCNET, TAIL),
        [
            (CCNET["raw_content"], CCNET["url"], "head"),
            ("Schluss", CCNET["url"], "tail"),
        ],
    ),
    (
        "gc4",
        "a.txt",
        f"{CCNET}\n{TAIL}\n".encode(),
        [(CCNET["raw_content"], CCNET["url"], "head"), ("Schluss", CCNET["url"], "tail")],
    ),
    ("gc4", "de_head.json.gz", gz_lines(CCNET), [(CCNET["raw_content"], CCNET["url"], "head")]),
    (
        "wikipedia",
        "train-00000-of-00020.parquet",
        parquet(WIKIPEDIA),
        [(WIKIPEDIA["text"], WIKIPEDIA["url"])],
    ),
    ("culturax", "de_part_00000.parquet", parquet(CULTURAX), [("Ein Text", "http://a.de")]),
    ("fineweb-2", "000_00000.parquet", parquet(FINEWEB), [("Ein Text", "http://a.de")]),
    (
        "mc4",
        "c4-de.tfrecord-00000-of-02048.json.gz",
        gz_lines(MC4),
        [("Ein Text", "http://a.de")],
    ),
    (
        "open-legal-data",
        "cases.jsonl.gz",
        gz_lines(COURT_DECISION),
        [("Tenor\nI. Die Beklagte wird verurteilt.",)],
    ),
    ("files", "a.json", b'{"text": "eins"}', [("eins",)]),
]


def read(kind: str, file: Path, text_field: str | None = None) -> list[Document | BrokenRecord]:
    source = SourceSection(input=str(file), kind=kind, text_field=text_field)
    return [document for piece in whole_splits([source]) for document in read_split(piece)]


@pytest.mark.parametrize(("kind", "name", "data", "expected"), LAYOUTS)
def test_published_layouts_give_text_url_and_tags(
    tmp_path: Path, kind: str, name: str, data: bytes, expected: list[tuple[str, ...]]
):
    (tmp_path / name).write_bytes(data)
    documents = read(kind, tmp_path / name)
    assert [document.text for document in documents] == [text for text, *_ in expected]
    for document, (_, *rest) in zip(documents, expected, strict=True):
        url = {"url": rest[0]} if rest else {}
        assert document.metadata == {"source": kind, "tags": rest[1:], **url}
        assert document.id.startswith(f"0/{name}/")


def test_every_kind_is_tried():
    assert {kind for kind, *_ in LAYOUTS} == {*SOURCES}


def test_a_text_field_replaces_that_of_the_kind(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps(WIKIPEDIA))
    (document,) = read("wikipedia", tmp_path / "a.jsonl", "title")
    assert document.text == "Alan Smithee"


def test_an_unknown_kind_is_reported():
    sources = {"sources": [{"input": "x", "kind": "pile"}]}
    with pytest.raises(UserError, match=r"sources.0.kind: .*'files', 'oscar-2019', 'oscar',"):
        PrepareConfig.from_dict(sources)


def test_a_suffix_that_the_kind_does_not_have_is_reported(tmp_path: Path):
    (tmp_path / "de_sha256.txt").write_text("checksums are no text")
    with pytest.raises(UserError, match=r"suffix: files of the kind oscar end in \.jsonl, \.json"):
        read("oscar", tmp_path / "de_sha256.txt")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"url": "a"}, "no field content or text, only url: name the one that holds the text"),
        ({"content": ["a"]}, "content is list, not a string"),
        ({"content": "\ud83d"}, "content holds half of a surrogate pair"),
        (
            {"content": "a", "warc_headers": {"warc-target-uri": "\ud83d"}},
            "warc_headers.warc-target-uri holds half of a surrogate pair",
        ),
        (["a"], "not a JSON object with the key content or text"),
    ],
)
def test_faults_of_a_record_are_reported(record: object, reason: str):
    with pytest.raises(RecordError, match=reason):
        read_record(SOURCES["oscar"], record)


def test_odd_metadata_is_skipped():
    record = {"content": "a", "metadata": {"annotation": [1, "footer"]}, "warc_headers": "?"}
    assert read_record(SOURCES["oscar"], record) == ("a", {"tags": ["footer"]})


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("kein HTML", "kein HTML"),
        ("<h2>Tenor</h2>\n\n<p>Eins\n  und zwei</p><p>drei</p>", "Tenor\nEins und zwei\ndrei"),
        ("<p>§&nbsp;1 &amp; &#167; 2 &lt;neu&gt;</p>", "§ 1 & § 2 <neu>"),
        ("<p>ein <b>fet</b>tes W<i>or</i>t</p>", "ein fettes Wort"),
        ("eins<br>zwei<br/>drei", "eins\nzwei\ndrei"),
        ('<dl><dt><a name="rd_1">1</a></dt><dd><p>Text</p></dd></dl>', "1\nText"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a\nb"),
        ("<head><title>weg</title></head><script>weg()</script><p>da</p>", "da"),
        ("<html><head><title>weg</title><body><p>da</p></body></html>", "da"),
        ("<head><meta charset=utf-8><title>weg</title><p>da</p>", "da"),
        ("<head>\n<style>weg</style> da", "da"),
        ("<title>weg</title><p>da</p>", "da"),
        ("<style>p{}</style></style><p>da</p><!-- weg -->", "da"),
        ("<p>offen <b>und nie zu", "offen und nie zu"),
        ("a < b und 3 <4", "a < b und 3 <4"),
        ("", ""),
    ],
)
def test_paragraphs_become_lines(html: str, text: str):
    assert html_to_text(html) == text


def test_text_that_the_parser_rejects_is_a_value_error():
    with pytest.raises(ValueError, match="unknown status keyword"):
        html_to_text("<![unbekannt[ ]]>")
