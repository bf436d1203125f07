"""Lines that are on a page but say nothing of its own."""

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter

from clp_jax.data.clean.phrases import phrases
from clp_jax.data.samples import Samples

_LONGEST = 300


class Boilerplate(C4QualityFilter):
    """Drop lines on cookies, scripts and the like, and documents that hold nothing else.

    A line goes if it holds a phrase of `phrases` and is short: a paragraph may speak of cookies.
    Of the rules of C4 (https://jmlr.org/papers/v21/20-074.html) those are kept that fit any
    language and kind of text: documents with the filler text "lorem ipsum" go, and lines with a
    word of more than 1,000 characters. Not kept: that a line ends with a full stop and has three
    words (headings, verse, dialogue), that a document has five sentences and no curly bracket
    (formulas, programs), that each mention of JavaScript is an error message, and that a number in
    brackets is a reference.

    Args:
        language: ISO 639-1 code of the language whose phrases are looked for beside the English
            ones; none: only these.
        samples: Where a few of the dropped documents go.
    """

    name = "boilerplate"

    def __init__(self, language: str | None, samples: Samples):
        super().__init__(
            samples,
            remove_citations=False,
            filter_no_terminal_punct=False,
            min_num_sentences=-1,
            min_words_per_line=-1,
            filter_javascript=False,
            filter_curly_bracket=False,
            filter_policy=False,
        )
        self.phrases = phrases(language)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Take the lines out of a document; keep it if something is left."""
        if self._has_phrase(doc.text):
            lines = doc.text.splitlines()
            kept = [line for line in lines if len(line) > _LONGEST or not self._has_phrase(line)]
            if len(kept) < len(lines):
                self.stat_update("lines", value=len(lines) - len(kept))
            doc.text = "\n".join(kept)
        if super().filter(doc) is not True:
            return False, "lorem ipsum"
        return bool(doc.text) or (False, "nothing else")

    def stat_update(self, *labels: str, value: int = 1, unit: str | None = None) -> None:
        """Count, but not the lines that stay."""
        told = [label for label in labels if label not in ("line-total", "line-kept")]
        super().stat_update(*told, value=value, unit=unit)

    def _has_phrase(self, text: str) -> bool:
        small = text.lower()
        return any(phrase in small for phrase in self.phrases)
