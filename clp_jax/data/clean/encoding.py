"""Repair of text that was decoded wrongly."""

import re

from datatrove.pipeline.formatters import FTFYFormatter

from clp_jax.data.words import composed

# Without one of these characters or pairs ftfy changes nothing: entities, control characters, and
# what its heuristic of bad text needs, which tests/data/clean/test_encoding.py proves. Written so
# that most German text is free of it.
_SUSPICIOUS = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f&\x7f-\x9fÂÃŒœ\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]"
    "|[äöü][^\x00-\x7fß]|[^\x00-\x7fäöü][^\x00-\x7f]"
)


class Encoding(FTFYFormatter):
    """Repair text such as `fÃ¼r` or `f&uuml;r`, and compose letters of two characters (NFC).

    The documents that were changed are counted.
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
