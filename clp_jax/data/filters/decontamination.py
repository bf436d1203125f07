"""Decontamination: documents with the text of a test are dropped, so none is answered from memory.

datatrove's own filter supports only LightEval tasks; this one reads the tests from files.
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
from clp_jax.data.seals import check_seal, seal
from clp_jax.errors import UserError
from clp_jax.files import new_file

_SHORTEST = 8
_MARKS = regex.compile(r"\p{M}+")
# A Chinese or Japanese character counts as a word. Scripts of Southeast Asia put no spaces between
# words of several letters: there, the twelve letters from each position on count as a word.
_SYLLABIC = r"\p{Han}\p{Hiragana}\p{Katakana}"
_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)|[{_SYLLABIC}]|(?:(?![{_SYLLABIC}{_UNSPACED}])[^\W_])+"
)
_ASCII_WORD = re.compile(r"[^\W_]+")
_LETTERS = 12
# A table of the first bits of known hashes avoids most searches: 4 MB.
_BITS = 22
_FACTOR = 0x9E3779B97F4A7C15


class IndexedTests(NamedTuple):
    """The test texts of an index.

    Attributes:
        texts: Number of texts in the index.
        ignored: Number of texts that are too short for it.
    """

    texts: int
    ignored: int


def build_index(section: DecontaminateSection, file: Path) -> IndexedTests:
    """Write the index that `Decontaminate` searches: a sorted array of hashes, uint64.

    It holds the hashes of all sequences of ``section.ngram`` words of the texts, and of each
    shorter text as a whole if it has at least eight words; shorter sentences occur by chance.
    Each input needs at least one of ``section.text_fields``.

    Raises:
        UserError: an input cannot be read or has none of the fields, a field does not hold text, or
            no text is long enough.
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
            f"decontaminate.against: no text in {', '.join(section.against)} is long enough: "
            f"name tests with texts of at least {_SHORTEST} words."
        )
    with new_file(file) as scratch, scratch.open("wb") as stream:
        np.save(stream, np.unique(np.concatenate(hashes)))
    seal(file, 0, file)
    return IndexedTests(len(hashes), ignored)


class Decontaminate(BaseFilter):
    """Drop documents that share a sequence of words with the text of a test.

    Args:
        section: Sets the number of words.
        index: File that `build_index` wrote with the same section.
        samples: Keeps a few of the dropped documents.
    """

    name = "decontaminate"

    def __init__(self, section: DecontaminateSection, index: Path, samples: Samples):
        super().__init__(samples)
        self.lengths = range(min(_SHORTEST, section.ngram), section.ngram + 1)
        self.index = index
        self._known: np.ndarray | None = None
        self._prefixes = np.zeros(0, bool)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that shares nothing; the reason gives the number of shared words."""
        if self._known is None:
            check_seal(self.index, 0)
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
    """The words of ``text`` in UTF-8, without case, accents and punctuation.

    In scripts without spaces, a word is a character or a sequence of twelve (see above).
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
    """The hash of the words from each position on, for each of ``lengths`` (in steps of one).

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
