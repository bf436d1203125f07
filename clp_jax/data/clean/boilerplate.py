"""Lines that are on a page but say nothing of its own."""

import re

import regex
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from clp_jax.data.clean.phrases import hints, phrases
from clp_jax.data.samples import Samples

_LONGEST = 300
_ITEM_WORDS = 5
_SEAM = re.compile(r"\s*(?:[|•·»›]|\s[-–—/]\s|(?<=[^\W\d_])[.!?…]+(?=\s|$))\s*")
_MARKS = " \t\r*#>-–—.!?…"
# Scripts that put no blanks between words have long ones.
_LONGEST_WORD = 1000
_ENDLESS_WORD = regex.compile(
    r"[^\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
    rf"{{{_LONGEST_WORD + 1}}}"
)


class Boilerplate(BaseFilter):
    """Drop lines on cookies, scripts and the like, and documents that hold nothing else.

    A line goes if its first sentence begins like one of `phrases`, or another one does and all the
    rest are items of a menu, of five words or fewer. It stays if it is longer than 300 characters
    or merely speaks of cookies or rights. Of the rules of C4 (https://jmlr.org/papers/v21/20-074.html)
    those are kept that fit any language and kind of text: documents go of which a line begins with
    the filler text "lorem ipsum", and lines with a word of more than 1,000 characters. What stays
    is left as it is, indentation and blank lines too.

    Args:
        language: ISO 639-1 code of the language whose phrases are looked for beside the English
            ones; none: only these.
        samples: Where a few of the dropped documents go.
    """

    name = "boilerplate"

    def __init__(self, language: str | None, samples: Samples):
        super().__init__(samples)
        self.hints = hints(language)
        self.phrases = phrases(language)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Take the lines out of a document; keep it if something is left."""
        lines = doc.text.split("\n")
        kept = lines
        if _has_endless_word(doc.text):
            kept = [line for line in lines if not _has_endless_word(line)]
            self.stat_update("line-filter-too_long_word", value=len(lines) - len(kept))
        if self.hints.search(doc.text.lower()):
            if any(_plain(line).startswith("lorem ipsum") for line in kept):
                return False, "lorem ipsum"
            own = [line for line in kept if not self.is_boilerplate(line)]
            if len(own) < len(kept):
                self.stat_update("lines", value=len(kept) - len(own))
            kept = own
        if len(kept) < len(lines):
            doc.text = "\n".join(kept).strip("\n")
        return bool(doc.text.strip()) or (False, "nothing else")

    def is_boilerplate(self, line: str) -> bool:
        """Whether a line says nothing of the page's own."""
        if len(line) > _LONGEST or not self.hints.search(line.lower()):
            return False
        parts = [_plain(part) for part in _SEAM.split(line)]
        parts = [part for part in parts if part]
        found = [self.phrases.match(part) is not None for part in parts]
        rest = [part for part, is_phrase in zip(parts, found, strict=True) if not is_phrase]
        return any(found[:1]) or (
            any(found) and all(len(part.split()) <= _ITEM_WORDS for part in rest)
        )


def _has_endless_word(text: str) -> bool:
    return any(len(word) > _LONGEST_WORD and _ENDLESS_WORD.search(word) for word in text.split())


def _plain(line: str) -> str:
    return line.strip(_MARKS).lower()
