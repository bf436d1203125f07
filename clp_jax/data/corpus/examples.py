"""A corpus of examples: questions, of which the answers are predicted."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clp_jax.data.corpus.store import (
    ANSWERS,
    Corpus,
    Size,
    describe,
    tokens_name,
    write_manifest,
)
from clp_jax.errors import UserError
from clp_jax.files import new_folder
from clp_jax.tokenizer import Tokenizer


class Example(NamedTuple):
    """A question and its answer.

    Attributes:
        question: its tokens.
        answer: the tokens that follow them.
        text: the answer as text.
    """

    question: Sequence[int]
    answer: Sequence[int]
    text: str


def write_examples(examples: Sequence[Example], tokenizer: Tokenizer, out: str | Path) -> None:
    """Write examples as a corpus that `Corpus.open` reads; an equal one stays.

    Args:
        examples: questions and answers, at least one.
        tokenizer: the tokenizer that made their tokens.
        out: the folder.

    Raises:
        UserError: it exists with something else.
    """
    ids = np.array([id for one in examples for id in (*one.question, *one.answer)], tokenizer.dtype)
    lengths = np.array([(0, len(one.question), len(one.answer)) for one in examples], np.int64)
    stops = lengths.sum(1).cumsum()
    places = (stops - lengths.sum(1))[:, None] + lengths.cumsum(1)
    sizes = [Size.of(one.text) for one in examples]
    facts = {
        "tokens": len(ids),
        "documents": len(examples),
        "words": sum(size.words for size in sizes),
        "bytes": sum(size.bytes for size in sizes),
        "unknown_bytes": 0,
        "sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
    }
    manifest = describe([facts], tokenizer) | {"examples": True}
    both = manifest["fingerprint"] + hashlib.sha256(places.tobytes()).hexdigest()
    manifest["fingerprint"] = hashlib.sha256(both.encode()).hexdigest()
    if Path(out).exists():
        if Corpus.open(out).fingerprint != manifest["fingerprint"]:
            raise UserError(
                f"{out} has other examples than those of this task, tokenizer and number: choose "
                "another folder, or the same settings as before."
            )
        return
    with new_folder(out) as folder:
        ids.tofile(folder / tokens_name(0, 1))
        np.save(folder / ANSWERS, places)
        write_manifest(folder, [facts], manifest)
