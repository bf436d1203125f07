"""Gopher's rules (https://arxiv.org/abs/2112.11446, table A1) without its English words.

Where its thresholds would drop much good text that is not from the web, they are wider; measured
on 2,000 German documents (law, parliament, novels, plays, diaries) and said where they are set.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.text import split_into_words

from clp_jax.data.samples import Samples
from clp_jax.data.words import Words

# 0.8 in the paper, whose words are cut at white space; punctuation marks are words here.
_LETTERS = 0.5
# 0.3 in the paper, which drops 2% of the plays: lines of dialogue break off.
_UNFINISHED = 0.5
# 0.3 in the paper, which drops sittings of a parliament: the speakers' names stand alone.
_SAME_LINES = 0.5
_TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
# Half of it in the paper, which drops 14% of the law: it names paragraphs over and over.
_REPEATED = ((5, 0.30), (6, 0.28), (7, 0.26), (8, 0.24), (9, 0.22), (10, 0.20))

_QUALITY_REASONS = {
    "gopher_below_avg_threshold": "short words",
    "gopher_above_avg_threshold": "long words",
    "gopher_too_many_hashes": "number signs",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullet points",
    "gopher_too_many_end_ellipsis": "unfinished lines",
    "gopher_below_alpha_threshold": "symbols and numbers",
}
_REPETITION_REASONS = {
    "empty": "empty",
    "dup_para_frac": "repeated paragraphs",
    "dup_para_char_frac": "repeated paragraphs",
    "dup_line_frac": "repeated lines",
    "dup_line_char_frac": "repeated lines",
    **{f"top_{n}_gram": f"one sequence of {n} words" for n, _ in _TOP},
    **{f"duplicated_{n}_n_grams": f"repeated sequences of {n} words" for n, _ in _REPEATED},
}


class Quality(GopherQualityFilter):
    """Drop documents of symbols, numbers, bullets, broken lines and odd words."""

    name = "quality"

    def __init__(self, samples: Samples):
        super().__init__(
            min_doc_words=1,
            max_doc_words=None,
            max_ellipsis_lines_ratio=_UNFINISHED,
            max_non_alpha_words_ratio=_LETTERS,
            min_stop_words=None,
            exclusion_writer=samples,
            language=Words(),
        )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that reads like text."""
        result = super().filter(doc)
        return result if result is True else (False, _QUALITY_REASONS.get(result[1], "no words"))


class Repetition(GopherRepetitionFilter):
    """Drop documents that repeat lines, paragraphs or sequences of words."""

    name = "repetition"

    def __init__(self, samples: Samples):
        super().__init__(
            dup_line_frac=_SAME_LINES,
            top_n_grams=_TOP,
            dup_n_grams=_REPEATED,
            exclusion_writer=samples,
            language=Words(),
        )
        self._lines = GopherRepetitionFilter(
            dup_line_frac=_SAME_LINES, top_n_grams=(), dup_n_grams=(), language=Words()
        )

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep a document that does not repeat itself.

        The rules on sequences are slow: they are left out where a bound tells that they all hold.
        """
        words = split_into_words(doc.text, self.language)
        if few_sequences(words, len(doc.text)):
            result = self._lines.filter(doc)
        else:
            result = super().filter(doc)
        return result if result is True else (False, _REPETITION_REASONS[result[1]])


def few_sequences(words: Sequence[str], characters: int) -> bool:
    """Whether no rule on sequences of words can be broken; false does not say that one is.

    A sequence of three or four words is made of two pairs, so that it covers, blanks counted, at
    most twice what the greatest pair covers. And a repeated sequence of more than five words is
    made of repeated sequences of five, so that these cover at least as much.

    Args:
        words: Words of a text, as the rules see them.
        characters: Length of the text.
    """
    pairs = Counter(pairwise(words))
    most = max((count * (len(a) + len(b) + 2) for (a, b), count in pairs.items()), default=0)
    if 2 * most > min(share for _, share in _TOP) * characters:
        return False
    seen, covered, end = set(), 0, 0
    for start, sequence in enumerate(zip(*(words[i:] for i in range(5)), strict=False)):
        if sequence in seen:
            covered += sum(map(len, words[max(start, end) : start + 5]))
            end = start + 5
        seen.add(sequence)
    return covered <= min(share for _, share in _REPEATED) * characters
