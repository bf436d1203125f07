"""Rules for a document as a whole: its encoding, tags and length."""

import re
from collections.abc import Collection

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import FTFYFormatter
from datatrove.utils.text import split_into_words

from clp_jax.data.samples import Samples
from clp_jax.data.words import Words, composed, is_symbol

# ftfy changes a text only if it has one of these characters or pairs: entities, control characters,
# and what its badness heuristic needs (tests/data/filters/test_document.py proves this). Most
# German text has none of them.
_SUSPICIOUS = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f&\x7f-\x9fÂÃŒœ\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]"
    "|[äöü][^\x00-\x7fß]|[^\x00-\x7fäöü][^\x00-\x7f]"
)


class Encoding(FTFYFormatter):
    """Repair text such as `fÃ¼r` or `f&uuml;r`, and compose decomposed letters (NFC).

    Changed documents are counted.
    """

    name = "encoding"

    def format(self, text: str) -> str:
        """The repaired text."""
        if _SUSPICIOUS.search(text) is not None:
            repaired: str = super().format(text)
            if repaired != text:
                self.stat_update("repaired")
                text = repaired
        if (whole := composed(text)) != text:
            self.stat_update("composed")
        return whole


class Tags(BaseFilter):
    """Drop documents that carry one of the ``excluded`` tags."""

    name = "tags"

    def __init__(self, excluded: Collection[str], samples: Samples):
        super().__init__(samples)
        self.excluded = tuple(excluded)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document without these tags; the reason is the first tag found."""
        given = doc.metadata.get("tags") or ()
        found = next((tag for tag in self.excluded if tag in given), None)
        return True if found is None else (False, found)


class MaxLength(BaseFilter):
    """Drop documents with more than ``characters`` characters."""

    name = "max-length"

    def __init__(self, characters: int, samples: Samples):
        super().__init__(samples)
        self.characters = characters

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that is not too long."""
        return len(doc.text) <= self.characters or (False, "too long")


class MinLength(BaseFilter):
    """Drop documents with fewer than ``words`` words; symbols do not count as words."""

    name = "min-length"

    def __init__(self, words: int, samples: Samples):
        super().__init__(samples)
        self.words = words

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that is long enough."""
        words = split_into_words(doc.text, Words())
        return sum(not is_symbol(word) for word in words) >= self.words or (False, "too short")
