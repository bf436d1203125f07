"""The kinds of sources: which fields of a record hold its text, address and tags."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import unescape
from html.parser import HTMLParser
from typing import Any, NamedTuple

from clp_jax.data.io.formats import (
    ARCHIVE,
    BLANK_LINES,
    DICTIONARIES,
    LINES,
    LIST,
    ROWS,
    WHOLE,
    Format,
    RecordError,
    Text,
)

# fmt: off
_INLINE = frozenset((
    "a", "abbr", "b", "big", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd",
    "mark", "q", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr",
))
# fmt: on
_UNREAD = frozenset(("script", "style", "title", "template"))
# The elements of a head: any other ends it, with or without `</head>`.
_IN_HEAD = _UNREAD | {"head", "html", "base", "link", "meta", "noscript"}


class _Paragraphs(HTMLParser):
    """Collects paragraphs: every tag that is not inline ends one."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._pieces: list[str] = []
        self._unread = 0
        self._in_head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_head = tag == "head" or (self._in_head and tag in _IN_HEAD)
        self._unread += tag in _UNREAD
        self._tag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNREAD and self._unread:
            self._unread -= 1
        if tag == "head":
            self._in_head = False
        self._tag(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag(tag)

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self._in_head = self._in_head and data.isspace()
            self._pieces.append(data)

    def close(self) -> None:
        super().close()
        self._end_paragraph()

    def _tag(self, tag: str) -> None:
        if tag not in _INLINE:
            self._end_paragraph()

    def _end_paragraph(self) -> None:
        if paragraph := " ".join("".join(self._pieces).split()):
            self.paragraphs.append(paragraph)
        self._pieces.clear()


def html_to_text(html: str) -> str:
    """The text of ``html``: paragraphs, headings, list items and cells, each on its own line.

    Raises:
        ValueError: ``html`` is more broken than the parser tolerates.
    """
    parser = _Paragraphs()
    end = html.rfind(">") + 1  # no tag after it is complete, so none is searched for
    try:
        parser.feed(html[:end])
        parser.handle_data(unescape(html[end:]))
        parser.close()
    except AssertionError as error:
        raise ValueError(str(error)) from None
    return "\n".join(parser.paragraphs)


_RECORDS = {".jsonl": LINES, ".json": LIST, ".parquet": ROWS}


class RecordFormat(NamedTuple):
    """The layout of the records of a corpus.

    A dot separates nested fields: ``warc_headers.warc-target-uri``.

    Attributes:
        text: Fields that may hold the text; the first one present is used.
        url: Fields that may hold the address of the page.
        tags: Fields with tags: a string, a list of strings, or null for none.
        formats: The file format for each suffix. Records from the hub have the same fields.
        to_text: Converts the content of the text field to plain text.
    """

    text: tuple[str, ...] = ("text",)
    url: tuple[str, ...] = ("url",)
    tags: tuple[str, ...] = ()
    formats: Mapping[str, Format] = _RECORDS
    to_text: Callable[[str], str] = str


SOURCES = {
    # A whole .txt file, a line of JSON, a row of parquet.
    "files": RecordFormat(formats={".txt": WHOLE, **_RECORDS}),
    # Texts separated by a blank line: oscar-corpus.com/post/oscar-schema-v1-1. On the hub, each is
    # a record with id and text: datasets/oscar/oscar.py in github.com/huggingface/datasets.
    "oscar-2019": RecordFormat(formats={".txt": BLANK_LINES, **_RECORDS}),
    # 22.01 (annotation, may be null) and 23.01 (quality_warnings, categories): docs/versions/ and
    # docs/schema/schema-v2.md in github.com/oscar-project/documentation. On the hub the text is in
    # `text` and the rest in `meta`.
    "oscar": RecordFormat(
        text=("content", "text"),
        url=("warc_headers.warc-target-uri", "meta.warc_headers.warc-target-uri"),
        tags=(
            "metadata.annotation",
            "metadata.quality_warnings",
            "metadata.categories",
            "meta.annotations",
            "meta.quality_warnings",
            "meta.categories",
        ),
    ),
    # An archive holds a text file with CCNet's dictionaries on one line, as Python prints them:
    # written by Hashing/Dedup.py in github.com/German-NLP-Group/german-transformer-training, read
    # by extractor.py in github.com/GermanT5/corpus. The bucket is head, middle or tail. Other
    # copies are unpacked, one dictionary per line, or JSON.
    "gc4": RecordFormat(
        text=("raw_content",),
        tags=("bucket",),
        formats={
            ".tar": ARCHIVE,
            ".txt": DICTIONARIES,
            ".jsonl": DICTIONARIES,
            ".json": DICTIONARIES,
            ".parquet": ROWS,
        },
    ),
    # id, url, title, text: huggingface.co/datasets/wikimedia/wikipedia.
    "wikipedia": RecordFormat(),
    # text, timestamp, url, source: huggingface.co/datasets/uonlp/CulturaX.
    "culturax": RecordFormat(),
    # text, id, dump, url, date, ...: huggingface.co/datasets/HuggingFaceFW/fineweb-2.
    "fineweb-2": RecordFormat(),
    # text, timestamp, url in multilingual/c4-de.*.json.gz: huggingface.co/datasets/allenai/c4.
    "mc4": RecordFormat(),
    # HTML in `content`: huggingface.co/datasets/openlegaldata/court-decisions-germany, and its
    # original dumps, static.openlegaldata.io/dumps/de/.
    "open-legal-data": RecordFormat(text=("content",), to_text=html_to_text),
}
"""The kinds of sources."""


class MissingText(RecordError):
    """A record without the field that should hold the text."""

    def __init__(self, fields: Sequence[str], present: Sequence[str]):
        super().__init__(
            f"no field {' or '.join(fields)}, only {', '.join(present) or 'nothing'}: "
            "name the one that holds the text"
        )


def needed_columns(layout: RecordFormat, columns: Sequence[str]) -> list[str]:
    """The columns of a file that need to be read.

    Raises:
        MissingText: none of them holds the text.
    """
    text = [field for field in layout.text if field in columns][:1]
    if not text:
        raise MissingText(layout.text, columns)
    needed = {*text, *(path.split(".")[0] for path in (*layout.url, *layout.tags))}
    return [column for column in columns if column in needed]


def read_record(layout: RecordFormat, record: Any) -> tuple[str, dict[str, Any]]:
    """The text of a record and its metadata: ``tags``, and ``url`` if it has one.

    Args:
        layout: The expected layout.
        record: The fields of the record, or a `Text`.

    Raises:
        RecordError: the record does not have that layout.
    """
    if isinstance(record, Text):
        return record.text, {"tags": []}
    if not isinstance(record, Mapping):
        raise RecordError(f"not a JSON object with the key {' or '.join(layout.text)}")
    field = next((field for field in layout.text if field in record), None)
    if field is None:
        raise MissingText(layout.text, list(record))
    text = record[field]
    if not isinstance(text, str):
        raise RecordError(f"{field} is {type(text).__name__}, not a string")
    try:
        text = layout.to_text(_sound(text, field))
    except ValueError as error:
        raise RecordError(f"{field} cannot be converted ({error})") from None
    metadata: dict[str, Any] = {"tags": list(dict.fromkeys(_strings(record, layout.tags)))}
    if url := next(_strings(record, layout.url), None):
        metadata["url"] = url
    return text, metadata


def _strings(record: Mapping[str, Any], paths: Sequence[str]) -> Iterator[str]:
    """The strings, alone or in lists, at ``paths``."""
    for path in paths:
        value: Any = record
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        for string in value if isinstance(value, list) else [value]:
            if isinstance(string, str):
                yield _sound(string, path)


def _sound(string: str, path: str) -> str:
    try:
        string.encode()
    except UnicodeEncodeError:
        raise RecordError(f"{path} holds half of a surrogate pair") from None
    return string
