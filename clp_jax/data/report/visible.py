"""Text of unknown origin, made fit to be looked at."""

import unicodedata

_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

LINES = "\n\t"
"""What makes lines of a text."""


def visible(text: str, kept: str = "") -> str:
    """Replace by ``�`` what a terminal or a browser would obey rather than show.

    These are control characters (ANSI escapes begin with one), line and paragraph separators,
    halves of surrogate pairs and the marks that turn the direction of writing.

    Args:
        text: Any string, also one that UTF-8 cannot encode.
        kept: Characters to leave alone, such as the newline.
    """
    return "".join(
        "�" if character not in kept and _acts(character) else character for character in text
    )


def _acts(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _DIRECTIONS
    )
