"""The same text as tokens of two tokenizers, and the positions at which both have read as much."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Int32

from clp_jax.tokenizer import AnyTokenizer, Tokenizer
from clp_jax.vocabulary.tokens import read_vocabulary

NONE = -1
"""In place of a position: no token of the other tokenizer ends there."""


class _Side:
    """A tokenizer, and what each of its ids stands for in running text."""

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = Tokenizer.of(tokenizer)
        self.end = self.tokenizer.separator()
        tokens = read_vocabulary(self.tokenizer).tokens
        self.bytes = {id: b"" if token.roles else token.bytes for id, token in tokens.items()}

    def text(self, ids: list[int]) -> bytes:
        return b"".join(self.bytes.get(id, b"") for id in ids)

    def ends(self, ids: list[int]) -> Int[np.ndarray, " token"]:
        """Where each token ends in the text; -1 for one without text, such as bos."""
        lengths = np.array([len(self.bytes.get(id, b"")) for id in ids], np.int64)
        return np.where(lengths > 0, np.cumsum(lengths), NONE)


class Aligner:
    """Writes windows of one tokenizer's ids with another tokenizer, byte for byte.

    Args:
        target: the tokenizer of the windows.
        source: the other one.
        length: ids of the other tokenizer per window; what is longer is cut, what is shorter is
            filled up with its end-of-text id.
    """

    def __init__(self, target: AnyTokenizer, source: AnyTokenizer, length: int) -> None:
        self.target, self.source, self.length = _Side(target), _Side(source), length

    def __call__(
        self, windows: Int[np.ndarray, "window tokens"]
    ) -> tuple[Int32[np.ndarray, "window length"], Int32[np.ndarray, "window tokens"]]:
        """The windows in ids of the other tokenizer, and for each own token the position there.

        A token's position is that of the other tokenizer's token that ends at the same byte of the
        same document, or -1 if there is none: for special tokens, and for all tokens of a document
        that the other tokenizer spells with other bytes, as by Unicode normalisation. It gets the
        text without partial UTF-8 at the ends of a window, and puts its opening ids before
        each document and the rest of one.
        """
        pieces = [list(self._documents(window.tolist())) for window in windows]
        texts = [text for window in pieces for *_, text in window]
        encoded = iter(self.source.tokenizer.encode_batch([text.decode() for text in texts]))
        ids = np.full((len(windows), self.length), self.source.end, np.int32)
        positions = np.full(windows.shape, NONE, np.int32)
        for row, window in enumerate(pieces):
            used: list[int] = []
            for start, own, skipped, text in window:
                used += self.source.tokenizer.opening
                theirs = next(encoded).tolist()
                places = self._places(own, skipped, theirs, text)
                positions[row, start : start + len(own)] = np.where(
                    places == NONE, NONE, places + len(used)
                )
                used += theirs
                if start + len(own) < windows.shape[1]:
                    used.append(self.source.end)
            ids[row, : min(len(used), self.length)] = used[: self.length]
        positions[positions >= self.length] = NONE
        return ids, positions

    def _documents(self, window: list[int]) -> Iterator[tuple[int, list[int], int, bytes]]:
        """Start and ids of each document's part, the bytes cut from its front, and its text."""
        start = 0
        while start <= len(window):
            try:
                stop = window.index(self.target.end, start)
            except ValueError:
                stop = len(window)
            own = window[start:stop]
            text = self.target.text(own)
            skipped = len(text) - len(text.lstrip(bytes(range(0x80, 0xC0))))
            yield start, own, skipped, _whole_characters(text[skipped:])
            start = stop + 1

    def _places(
        self, own: list[int], skipped: int, theirs: list[int], text: bytes
    ) -> Int[np.ndarray, " token"]:
        """The position among the other ids of each own token; none if they spell another text."""
        spelled = self.source.text(theirs)
        if spelled not in (text, b" " + text):
            return np.full(len(own), NONE)
        own_ends = self.target.ends(own)
        their_ends = self.source.ends(theirs)
        # A tokenizer that puts a space before every text has read one byte more.
        shift = len(spelled) - len(text) - skipped
        own_ends = np.where(own_ends > skipped, own_ends + shift, NONE)
        place = {end: i for i, end in enumerate(their_ends.tolist())} | {NONE: NONE}
        return np.array([place.get(end, NONE) for end in own_ends.tolist()], np.int64)


def _whole_characters(text: bytes) -> bytes:
    """Text without partial UTF-8 at its end; empty if the rest is not valid."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start] if error.reason == "unexpected end of data" else b""
    return text
