"""Text for terminals and pages, without control characters and characters that they cannot show."""

import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

LINES = "\n\t"
"""Control characters that lay out lines of text."""


def printable(text: str, keep: str = "") -> str:
    """The text with control characters, including line breaks, written as escapes.

    Names of files, tensors and models are untrusted and may contain any of them.

    Args:
        text: The text.
        keep: Control characters that stay.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def visible(text: str, kept: str = "") -> str:
    """Replace characters that a terminal or browser interprets instead of showing by ``�``.

    These are control characters (ANSI escapes begin with one), line and paragraph separators,
    lone surrogates and the marks that change the direction of writing.

    Args:
        text: Any string, even one that UTF-8 cannot encode.
        kept: Characters to keep, such as the newline.
    """
    return "".join(
        "�" if character not in kept and _acts(character) else character for character in text
    )


def _acts(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _DIRECTIONS
    )


@contextmanager
def printable_output() -> Iterator[None]:
    """Within, printed text is made `printable`, except for line breaks and tabs.

    A character that the terminal's encoding lacks is escaped too, so that it raises no error.
    """
    if sys.stdout is None:  # Closed before Python started; prints are dropped.
        yield
        return
    with redirect_stdout(_Printable(sys.stdout)):
        yield


class _Printable:
    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        encoding = self._stream.encoding or "utf-8"
        shown = printable(text, keep="\n\t").encode(encoding, "backslashreplace")
        self._stream.write(shown.decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
