"""Gopher's rules (https://arxiv.org/abs/2112.11446, table A1) without its English stop words.

Thresholds that would drop much good text from outside the web are relaxed; the comments give the
effect measured on 2,000 German documents (law, parliament, novels, plays, diaries).
"""

import re
from collections import Counter
from collections.abc import Sequence

from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.text import TERMINAL_PUNCTUATION, split_into_words

from clp_jax.data.samples import Samples
from clp_jax.data.words import Words

# 0.8 in the paper, which drops more than half of all: punctuation marks count as words here.
_LETTERS = 0.4
# 0.3 in the paper, which drops 2% of the plays: lines of dialogue trail off.
_UNFINISHED = 0.5
# As in the paper; but a line with a whole sentence or at least four words is not a bullet point:
# novels in many languages begin each line of dialogue with a hyphen.
_BULLETS = 0.9
_BULLET = re.compile(r"[ \t]*[-•*·▪] ?(?P<item>.*)")
_ITEM_WORDS = 4
_ENDS = (*TERMINAL_PUNCTUATION, "…", ":", ",", ";")
# 0.3 in the paper, which drops sittings of a parliament: speakers' names are on lines of their own.
_SAME_LINES = 0.5
_TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
# Half of it in the paper, which drops 14% of the law: it cites sections over and over.
_REPEATED = ((5, 0.30), (6, 0.28), (7, 0.26), (8, 0.24), (9, 0.22), (10, 0.20))

_QUALITY_REASONS = {
    "gopher_below_avg_threshold": "short words",
    "gopher_above_avg_threshold": "long words",
    "gopher_too_many_hashes": "number signs",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_end_ellipsis": "unfinished lines",
    "gopher_below_alpha_threshold": "symbols and numbers",
}
_REPETITION_REASONS = {
    "empty": "empty",
    "dup_para_frac": "repeated paragraphs",
    "dup_para_char_frac": "repeated paragraphs",
    "dup_line_frac": "repeated lines",
    "dup_line_char_frac": "repeated lines",
    **{f"duplicated_{n}_n_grams": f"repeated sequences of {n} words" for n, _ in _REPEATED},
}


class Quality(GopherQualityFilter):
    """Drop documents full of symbols, numbers, bullets, broken lines or odd words."""

    name = "quality"

    def __init__(self, samples: Samples):
        super().__init__(
            min_doc_words=1,
            max_doc_words=None,
            max_ellipsis_lines_ratio=_UNFINISHED,
            max_non_alpha_words_ratio=_LETTERS,
            max_bullet_lines_ratio=None,
            min_stop_words=None,
            exclusion_writer=samples,
            language=Words(),
        )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that reads like text."""
        result = super().filter(doc)
        if result is not True:
            return False, _QUALITY_REASONS.get(result[1], "no words")
        lines = [line for line in doc.text.splitlines() if line.strip()]
        bullets = sum(map(_is_bullet_point, lines))
        return bullets <= _BULLETS * len(lines) or (False, "bullet points")


def _is_bullet_point(line: str) -> bool:
    """Whether a line is an item of a menu or a list of names."""
    found = _BULLET.fullmatch(line)
    if found is None or len(found["item"].split()) >= _ITEM_WORDS:
        return False
    return not found["item"].rstrip("\"'”“’»«)] ").endswith(_ENDS)


class Repetition(GopherRepetitionFilter):
    """Drop documents that repeat lines, paragraphs or sequences of words.

    `most_common_sequence` replaces datatrove's rule for the most common sequence, which also drops
    short texts in which four long words, common in German, occur once or twice.
    """

    name = "repetition"

    def __init__(self, samples: Samples):
        rules = {"dup_line_frac": _SAME_LINES, "top_n_grams": (), "language": Words()}
        super().__init__(**rules, dup_n_grams=_REPEATED, exclusion_writer=samples)
        self._quick = GopherRepetitionFilter(**rules, dup_n_grams=())

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that does not repeat itself.

        The rules for repeated sequences are slow: they are skipped where none can apply.
        """
        words = split_into_words(doc.text, self.language)
        if repeated_share(words, len(doc.text)) <= min(share for _, share in _REPEATED):
            result = self._quick.filter(doc)
        else:
            result = super().filter(doc)
        if result is not True:
            return False, _REPETITION_REASONS[result[1]]
        length = most_common_sequence(words, len(doc.text))
        return length is None or (False, f"one sequence of {length} words")


def repeated_share(words: Sequence[str], characters: int) -> float:
    """The share of a text that consists of repeated sequences of five words, 0 to 1.

    It bounds the share of longer repeated sequences, which consist of repeated shorter ones.

    Args:
        words: Words of the text.
        characters: Length of the text.
    """
    seen, covered, end = set(), 0, 0
    for start, sequence in enumerate(zip(*(words[i:] for i in range(5)), strict=False)):
        if sequence in seen:
            covered += sum(map(len, words[max(start, end) : start + 5]))
            end = start + 5
        seen.add(sequence)
    return covered / max(characters, 1)


def most_common_sequence(words: Sequence[str], characters: int) -> int | None:
    """The length in words of a sequence that occurs at least three times and covers too much.

    Args:
        words: Words of a text.
        characters: Length of the text.
    """
    for length, share in _TOP:
        counts = Counter(zip(*(words[i:] for i in range(length)), strict=False))
        for sequence, count in counts.most_common(1):
            if count > 2 and count * len(" ".join(sequence)) > share * characters:
                return length
    return None
