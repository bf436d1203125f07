"""The vectors that a transfer is given, or trains, for its methods."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.token_vectors import read_token_vectors, token_vectors, train_token_vectors
from clp_jax.transfer.word_vectors import align, read_dictionary, read_word_vectors


class Vectors(NamedTuple):
    """Vectors from outside the models, a row an id; zeros for tokens that have none.

    Attributes:
        source: of the source's tokens, in one space with ``target``; from words.
        target: of the target's tokens; from words.
        tokens: of the target's tokens, by which tokens they stand beside.
    """

    source: Float[np.ndarray, "source dim"] | None = None
    target: Float[np.ndarray, "target dim"] | None = None
    tokens: Float[np.ndarray, "target token_dim"] | None = None


def read_vectors(
    config: TransferConfig, source: Tokenizer, helper: Tokenizer, text: Sequence[str]
) -> Vectors:
    """Read the vectors that the configuration names; for ``focus`` train those that it does not.

    Without text none are trained. ``auto`` goes without where they cannot be trained.

    Raises:
        UserError: a file is missing or damaged or does not fit the tokenizer; ``focus`` was named
            and its vectors cannot be trained.
    """
    rows = [source.rows, helper.rows]
    source_vectors = target_vectors = tokens = None
    if config.source_vectors and config.target_vectors:
        words = read_word_vectors(config.source_vectors), read_word_vectors(config.target_vectors)
        if config.dictionary:
            words = align(*words, read_dictionary(config.dictionary))
        source_vectors = token_vectors(words[0], source, rows[0])
        target_vectors = token_vectors(words[1], helper, rows[1])
    if config.token_vectors:
        tokens = read_token_vectors(config.token_vectors, rows[1])
    elif config.method in ("focus", "auto") and text:
        names = [helper.token(id) or "" for id in range(rows[1])]
        ids = helper.encode_batch(text)
        try:
            tokens = train_token_vectors(ids, names, seed=config.seed)
        except UserError:
            if config.method == "focus":
                raise
    return Vectors(source_vectors, target_vectors, tokens)
