"""HTML to plain text: a line a paragraph."""

from html import unescape
from html.parser import HTMLParser

# fmt: off
_INLINE = frozenset((
    "a", "abbr", "b", "big", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd",
    "mark", "q", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr",
))
# fmt: on
_UNREAD = frozenset(("script", "style", "title", "template"))
# What may stand in a head: anything else ends it, with or without `</head>`.
_IN_HEAD = _UNREAD | {"head", "html", "base", "link", "meta", "noscript"}


class _Paragraphs(HTMLParser):
    """Collects paragraphs: every tag that does not stand inside a line ends one."""

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
    """The text of ``html``: paragraphs, headings, list items and cells, each in a line.

    Raises:
        ValueError: it is broken beyond what the parser passes over.
    """
    parser = _Paragraphs()
    end = html.rfind(">") + 1  # behind it no tag is whole, and none is looked for
    try:
        parser.feed(html[:end])
        parser.handle_data(unescape(html[end:]))
        parser.close()
    except AssertionError as error:
        raise ValueError(str(error)) from None
    return "\n".join(parser.paragraphs)
