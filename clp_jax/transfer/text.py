"""A little text of the target language, drawn from everything that the user names."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from clp_jax.data.io.readers import read_texts
from clp_jax.data.io.splits import Split, text_splits
from clp_jax.errors import UserError

MOST_KEPT = 4_000_000
"""Characters of text to keep."""

MOST_READ = 128_000_000
"""Characters of text to read, the inputs in equal parts; of the hub at most `MOST_KEPT`."""

LONGEST_DOCUMENT = 20_000
"""Characters used per document, so that a sample holds more than a few books."""


class DrawnText(NamedTuple):
    """Documents drawn at random from all that were read.

    Attributes:
        documents: those kept, in the order of the input.
        read: how many were read.
        cut: names of the inputs of which only the beginning was read.
    """

    documents: Sequence[str] = ()
    read: int = 0
    cut: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """What was drawn from what, ready for JSON."""
        return {"documents": len(self.documents), "of": self.read, "cut": list(self.cut)}


def draw_text(data: Sequence[str], text_field: str, seed: int) -> DrawnText:
    """Draw documents from files and hub data sets, up to `MOST_KEPT` characters of them.

    Every document has a random number, and those with the smallest are kept. Of a long document, a
    part is used that begins at a random place.

    Args:
        data: inputs as in `clp_jax.data.io.readers.read_documents`.
        text_field: key or column that holds the text.
        seed: the same inputs and seed draw the same documents.

    Raises:
        UserError: there are fewer than two documents, or as in `read_documents`.
    """
    rng, numbers, cut = np.random.default_rng(seed), count(), list[str]()
    kept: list[tuple[float, int, str]] = []  # a heap, the largest random number first
    kept_characters = read_characters = 0
    splits = text_splits(data, text_field)
    for left, split in zip(range(len(splits), 0, -1), splits, strict=True):
        share = (MOST_READ - read_characters) // left
        for document in _beginning(split, share, cut):
            read_characters += len(document)
            draw, start = rng.random(2)
            place = int(start * max(len(document) - LONGEST_DOCUMENT + 1, 1))
            part = document[place : place + LONGEST_DOCUMENT]
            heapq.heappush(kept, (-draw, next(numbers), part))
            kept_characters += len(part)
            while kept_characters > MOST_KEPT and len(kept) > 2:
                kept_characters -= len(heapq.heappop(kept)[2])
    read = next(numbers)
    if read < 2:
        raise UserError(
            f"{' '.join(data)} holds {read} documents: a sample needs two or more, half of "
            "them to calibrate and half to evaluate."
        )
    documents = [text for _, _, text in sorted(kept, key=lambda entry: entry[1])]
    return DrawnText(documents, read, cut)


def _beginning(split: Split, characters: int, cut: list[str]) -> Iterator[str]:
    """Documents of an input up to a number of characters; ``cut`` gets its name if it has more."""
    left = min(characters, MOST_KEPT) if split.is_hub else characters
    for document in read_texts(split):
        if left <= 0:
            cut.append(split.input)
            return
        left -= len(document)
        yield document
