"""Documents that hold the text of a test are dropped, so that no answer comes from memory.

datatrove's own filter of this kind reads only the tasks of LightEval; this one reads files.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import regex
import xxhash
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from jaxtyping import UInt64

from clp_jax.data.config import DecontaminateSection
from clp_jax.data.io.readers import NoText, read_documents
from clp_jax.data.samples import Samples
from clp_jax.errors import UserError
from clp_jax.files import new_file

_SHORTEST = 8
_MARKS = regex.compile(r"\p{M}+")
# A character of Chinese or Japanese stands for a word. Scripts of Southeast Asia write words of
# several letters without blanks between: each place counts, with the twelve letters from there on.
_SYLLABIC = r"\p{Han}\p{Hiragana}\p{Katakana}"
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)|[{_SYLLABIC}]|(?:(?![{_SYLLABIC}{_UNSPACED}])[^\W_])+"
)
_ASCII_WORD = re.compile(r"[^\W_]+")
_LETTERS = 12
# A table of the first bits of known hashes spares most searches: 4 MB.
_BITS = 22
_FACTOR = 0x9E3779B97F4A7C15


class IndexedTests(NamedTuple):
    """What an index was made of.

    Attributes:
        texts: Texts of tests that are looked for.
        ignored: Texts of tests that are too short for it.
    """

    texts: int
    ignored: int


def build_index(section: DecontaminateSection, file: Path) -> IndexedTests:
    """Write what `Decontaminate` looks for: a sorted array of hashes, uint64.

    These are the hashes of all sequences of ``section.ngram`` words of the texts, and of each
    shorter text as a whole, if it has eight words: with fewer it could be anybody's sentence.
    An input need not have all of ``section.text_fields``, but one of them.

    Raises:
        UserError: an input cannot be read or has none of the fields, a field holds something else
            than text, or no text is long enough.
    """
    hashes: list[np.ndarray] = []
    ignored = 0
    for text in _test_texts(section):
        words = normal_words(text)
        length = min(len(words), section.ngram)
        if length < min(_SHORTEST, section.ngram):
            ignored += 1
        else:
            hashes.extend(sequence_hashes(words, range(length, length + 1)))
    if not hashes:
        raise UserError(
            f"decontaminate.against: no text of {', '.join(section.against)} is long enough "
            f"to be looked for ({_SHORTEST} words)."
        )
    with new_file(file) as scratch, scratch.open("wb") as stream:
        np.save(stream, np.unique(np.concatenate(hashes)))
    return IndexedTests(len(hashes), ignored)


class Decontaminate(BaseFilter):
    """Drop documents that share words in a row with the text of a test.

    Args:
        section: How many words.
        index: File that `build_index` wrote with the same section.
        samples: Where a few of the dropped documents go.
    """

    name = "decontaminate"

    def __init__(self, section: DecontaminateSection, index: Path, samples: Samples):
        super().__init__(samples)
        self.lengths = range(min(_SHORTEST, section.ngram), section.ngram + 1)
        self.index = index
        self._known: np.ndarray | None = None
        self._prefixes = np.zeros(0, bool)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that shares nothing; the reason tells how many words are shared."""
        if self._known is None:
            self._known = np.load(self.index, mmap_mode="r")
            self._prefixes = np.zeros(1 << _BITS, bool)
            self._prefixes[self._known >> (64 - _BITS)] = True
        words = normal_words(doc.text)
        for length, hashes in zip(self.lengths, sequence_hashes(words, self.lengths), strict=False):
            likely = hashes[self._prefixes[hashes >> (64 - _BITS)]]
            places = np.searchsorted(self._known, likely)
            if (self._known[np.minimum(places, len(self._known) - 1)] == likely).any():
                return False, f"{length} words of a test"
        return True


def normal_words(text: str) -> list[bytes]:
    """The words of ``text``, in UTF-8, without regard to case, accents and punctuation.

    In scripts without blanks between words, words are characters, or sequences of twelve.
    """
    if text.isascii():
        return " ".join(_ASCII_WORD.findall(text.casefold())).encode().split()
    text = _MARKS.sub("", unicodedata.normalize("NFD", text)).casefold()
    return [word.encode() for match in _WORD.finditer(text) for word in _parts(match)]


def _parts(match: regex.Match[str]) -> Iterator[str]:
    run = match["unspaced"]
    if run is None:
        yield match[0]
    else:
        yield from (run[i : i + _LETTERS] for i in range(max(1, len(run) - _LETTERS + 1)))


def sequence_hashes(
    words: Sequence[bytes], lengths: range
) -> Iterator[UInt64[np.ndarray, " starts"]]:
    """The hash of the words from each place on, for each of ``lengths`` (rising by one).

    The hash of words w_1 ... w_n is the sum of xxh64(w_k) f^k modulo 2^64, with an odd f.
    """
    each = np.fromiter(map(xxhash.xxh64_intdigest, words), np.uint64, len(words))
    sums = np.zeros(len(words) + 1, np.uint64)
    for length in range(1, min(lengths.stop - 1, len(words)) + 1):
        factor = np.uint64(pow(_FACTOR, length, 1 << 64))
        sums = sums[: len(words) - length + 1] + each[length - 1 :] * factor
        if length in lengths:
            yield sums


def _test_texts(section: DecontaminateSection) -> Iterator[str]:
    for item in section.against:
        faults = []
        for field in section.text_fields:
            texts = read_documents([item], field)
            try:
                yield next(texts)
            except NoText as fault:
                faults.append(fault)
                continue
            yield from texts
        if len(faults) == len(section.text_fields):
            raise faults[0]
