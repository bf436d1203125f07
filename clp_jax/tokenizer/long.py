"""Encoding of long text in parts, with the same ids as in one.

A normaliser may change the start or end of a text (add a space, strip white space), and a model may
look beyond a word; neither must happen at every cut. So neighbouring parts overlap, and they are
joined in the middle of a run of tokens that both have at the same positions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt
from tokenizers import Tokenizer

LONG = 1 << 16
"""Characters per part; shorter text is not split."""

_OVERLAP = 1 << 10
"""Characters on either side of a cut that both parts contain."""

_AGREEING = 16
"""Tokens on either side of a join that both parts must share."""

_LONGEST = 16 * LONG
"""Characters to encode at a time, and the most in a part that merges two that disagree."""


class _Part(NamedTuple):
    """The tokens of characters ``start`` to ``end``, one row each: id, start and end offset."""

    start: int
    end: int
    tokens: Int[np.ndarray, "token 3"]


def encode_long(backend: Tokenizer, text: str) -> UInt[np.ndarray, " _"]:
    """The ids of a text of any length, in bounded memory and on all CPU cores."""
    found, begin = [], 0
    left: _Part | None = None
    for right in _parts(backend, text):
        if left is None:
            left = right
            continue
        at = right.start + _OVERLAP
        join = _join(left, right, at)
        if join is None and right.end - left.start <= _LONGEST:
            left = _part(backend, text, left.start, right.end)
            continue
        stop, start = join or (_first_from(left, at), _first_from(right, at))
        found.append(left.tokens[begin:stop, 0])
        left, begin = right, start
    assert left is not None
    return np.concatenate([*found, left.tokens[begin:, 0]]).astype(np.uint32)


def _parts(backend: Tokenizer, text: str) -> Iterator[_Part]:
    for first in range(0, len(text), _LONGEST):
        starts = range(first, min(first + _LONGEST, len(text)), LONG)
        spans = [
            (max(start - _OVERLAP, 0), min(start + LONG + _OVERLAP, len(text))) for start in starts
        ]
        encodings = backend.encode_batch(
            [text[start:end] for start, end in spans], add_special_tokens=False
        )
        for span, encoding in zip(spans, encodings, strict=True):
            yield _Part(*span, _table(encoding.ids, encoding.offsets, span[0]))


def _part(backend: Tokenizer, text: str, start: int, end: int) -> _Part:
    encoding = backend.encode(text[start:end], add_special_tokens=False)
    return _Part(start, end, _table(encoding.ids, encoding.offsets, start))


def _table(
    ids: list[int], offsets: list[tuple[int, int]], start: int
) -> Int[np.ndarray, "token 3"]:
    spans = np.array(offsets, np.int64).reshape(-1, 2) + start
    return np.concatenate([np.array(ids, np.int64)[:, None], spans], axis=1)


def _join(left: _Part, right: _Part, at: int) -> tuple[int, int] | None:
    """The indices in both parts of a token near ``at`` around which both have the same tokens."""
    head = right.tokens[right.tokens[:, 1] < at + _OVERLAP]
    for i in np.argsort(np.abs(left.tokens[:, 1] - at), kind="stable").tolist():
        if abs(left.tokens[i, 1] - at) > _OVERLAP:
            break
        for j in np.flatnonzero((head == left.tokens[i]).all(axis=1)).tolist():
            mine = left.tokens[max(i - _AGREEING, 0) : i + _AGREEING]
            other = head[max(j - _AGREEING, 0) : j + _AGREEING]
            if len(mine) == 2 * _AGREEING and np.array_equal(mine, other):
                return i, j
    return None


def _first_from(part: _Part, at: int) -> int:
    return int(np.searchsorted(part.tokens[:, 1], at))
