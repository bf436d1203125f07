"""A little text of the target language, to calibrate and to judge transferred models by."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from clp_jax.data.readers import read_documents
from clp_jax.data.store import Corpus
from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer

MOST_READ = 4_000_000
"""Characters of the text that are read, from the beginning."""

LONGEST_DOCUMENT = 20_000
"""Characters of a document that are used, so that a sample holds more than a few books."""

WINDOWS = 64
LONGEST_WINDOW = 256
UNSEEN = 0.5
"""Added to the count of every token, so that none has the frequency zero."""


class Sample(NamedTuple):
    """Text as a tokenizer cuts it: half to measure frequencies on, the other half the loss.

    Attributes:
        frequencies: relative frequency of each id in the first half; those of ids without a token
            are as good as zero.
        fit: windows of the first half.
        judge: windows of the second half.
        bytes_per_token: of the second half.
    """

    frequencies: Float[np.ndarray, "id"]
    fit: Int32[np.ndarray, "window length"]
    judge: Int32[np.ndarray, "window length"]
    bytes_per_token: float


def read_text(data: Sequence[str], text_field: str) -> list[str]:
    """The beginnings of the documents of files or hub data sets, until `MOST_READ` is reached.

    Raises:
        UserError: there are fewer than two documents.
    """
    taken, characters = [], 0
    for document in read_documents(data, text_field=text_field):
        taken.append(document[:LONGEST_DOCUMENT])
        characters += len(taken[-1])
        if characters > MOST_READ:
            break
    if len(taken) < 2:
        raise UserError(
            f"{' '.join(data)} holds {len(taken)} documents: a sample needs two or more, half of "
            "them to calibrate and half to judge."
        )
    return taken


def make_sample(
    documents: Sequence[str],
    tokenizer: Tokenizer,
    *,
    rows: int,
    positions: int | None,
) -> Sample:
    """Tokenise documents, every other one for each half.

    Args:
        documents: the text.
        tokenizer: of the target vocabulary.
        rows: ids that there are, padding included.
        positions: the longest sequence that the model reads.
    """
    fit, judge = (Corpus.from_documents(documents[half::2], tokenizer) for half in (0, 1))
    known = np.zeros(rows)
    known[[*tokenizer.vocabulary.values()]] = UNSEEN
    counts = np.bincount(fit.tokens(), minlength=rows) + np.maximum(known, 1e-9)
    length = min(LONGEST_WINDOW, positions or LONGEST_WINDOW)
    return Sample(
        frequencies=counts / counts.sum(),
        fit=_windows(fit, length),
        judge=_windows(judge, length),
        bytes_per_token=judge.bytes / len(judge),
    )


def _windows(corpus: Corpus, length: int) -> Int32[np.ndarray, "window tokens"]:
    """Full windows, evenly spread over the corpus; one short one if there is no more."""
    count = (len(corpus) - 1) // length
    if not count:
        return corpus.tokens().astype(np.int32)[None]
    chosen = np.unique(np.linspace(0, count - 1, min(WINDOWS, count)).astype(int))
    return np.stack([corpus.window(index, length)[0] for index in chosen.tolist()])
