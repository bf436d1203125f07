"""How a text is cut into the windows that a model reads."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from clp_jax.data.corpus.store import Corpus

SHORTEST = 32
"""Predictions to which a shorter window is padded, so that few programs are compiled."""


class Window(NamedTuple):
    """Where a window is in a corpus: it reads ``start:stop`` and predicts ``scored:stop``."""

    start: int
    scored: int
    stop: int


def cut(start: int, scored: int, stop: int, length: int, stride: int) -> Iterator[Window]:
    """Windows of at most ``length`` predictions that predict each token of a text once.

    The first predicts as many as it can. Each further one predicts the next ``stride`` tokens,
    from at least ``length - stride + 1`` tokens before them.

    Args:
        start: The first token to read.
        scored: The first token to predict, after ``start``.
        stop: The end of the text.
        length: Predictions of the longest window, those that do not count included.
        stride: Tokens between the starts of two windows, at most ``length``.
    """
    end = start + 1 + length
    while scored < stop:
        yield Window(start, scored, min(end, stop))
        start, scored, end = start + stride, end, end + stride


def pad(
    corpus: Corpus, windows: Sequence[Window], size: int, length: int, shortest: int
) -> Iterator[tuple[Sequence[Window], Int32[np.ndarray, "size window"]]]:
    """Batches of ``size`` windows and their tokens, of which there is one more than predictions.

    Rows without a window and the ends of short ones are zeros. A batch of short windows is padded
    to a power of two, from ``shortest`` to ``length`` predictions.
    """
    for first in range(0, len(windows), size):
        batch = windows[first : first + size]
        longest = max(window.stop - window.start for window in batch) - 1
        width = min(length, max(shortest, 1 << (longest - 1).bit_length()))
        tokens = np.zeros((size, width + 1), np.int32)
        for row, window in zip(tokens, batch, strict=False):
            row[: window.stop - window.start] = corpus.tokens(window.start, window.stop)
        yield batch, tokens
