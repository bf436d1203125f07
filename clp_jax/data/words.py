"""The words of a text in any language that separates them by spaces."""

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
    """A language-independent word tokenizer for the `language` argument of datatrove's filters.

    A word is a run of letters, digits, inner hyphens and apostrophes; any other character that is
    not white space is a word of its own. All instances are equal, so datatrove, which caches the
    words of recent texts, tokenises each text only once for all its filters.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """The words of ``text``."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of ``text``; they end at closing punctuation and at line ends."""
        return _SENTENCE.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where each sentence starts and ends, in characters."""
        return [match.span() for match in _SENTENCE.finditer(text)]


def composed(text: str) -> str:
    """``text`` in composed form (NFC): ``ü`` as one character, not ``u`` and a mark."""
    return unicodedata.normalize("NFC", text)


def is_symbol(word: str) -> bool:
    """Whether a word of `Words` is a single character other than a letter or digit."""
    return len(word) == 1 and not word.isalnum()
