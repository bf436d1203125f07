"""Words of a text in any language that puts spaces between them."""

import unicodedata
from dataclasses import dataclass

import regex
from datatrove.utils.text import TERMINAL_PUNCTUATION
from datatrove.utils.word_tokenizers import WordTokenizer

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*|\S")
_END = regex.escape("".join(sorted(TERMINAL_PUNCTUATION)) + "…")
_SENTENCE = regex.compile(rf"\S.*?(?:[{_END}]+[\"'”“’»«)\]]*(?=\s)|(?=\n)|$)")


@dataclass(frozen=True)
class Words(WordTokenizer):
    """What datatrove's filters take as `language`: a tokenizer that knows no language.

    A word is a run of letters, digits, inner hyphens and apostrophes; each other character that is
    not white space is a word of its own. All instances are equal, so that datatrove, which keeps
    the words of the last texts, cuts each text into words only once for all its filters.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """The words of ``text``."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of ``text``: they end at a full stop or the like, and at line ends."""
        return _SENTENCE.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where each sentence starts and ends, in characters."""
        return [match.span() for match in _SENTENCE.finditer(text)]


def composed(text: str) -> str:
    """The same letters, each as one character where there is one: ``ü``, not ``u`` and a mark."""
    return unicodedata.normalize("NFC", text)


def is_symbol(word: str) -> bool:
    """Whether a word of `Words` is a single character that is no letter or digit."""
    return len(word) == 1 and not word.isalnum()
