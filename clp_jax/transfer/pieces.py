"""Rows for the tokens of one tokenizer from the rows of a model with another."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer.methods.similarity import spell
from clp_jax.transfer.table import TableRead, read_table
from clp_jax.vocabulary import Token, Vocabulary, match_vocabularies, read_vocabulary


@dataclass(frozen=True)
class Spelling:
    """How a helper's tokens spell the tokens of another tokenizer.

    Attributes:
        pieces: for each target id the helper ids that spell it; empty if there are none.
        counts: how many target tokens are ``one token`` of the helper, or ``several``; how many
            only its normalisation spells (``normalised``), and how many nothing does (``none``).
    """

    pieces: Mapping[int, Sequence[int]]
    counts: Mapping[str, int]

    def read(self, tensor: LazyTensor, ids: Int[np.ndarray, " chosen"]) -> TableRead:
        """The mean row of the pieces of each target id, zeros where there are none.

        The statistics are those of the helper's table, which is read once.
        """
        return read_means(tensor, [self.pieces[id] for id in ids.tolist()])


def used_pieces(spellings: Sequence[Sequence[int]]) -> Int[np.ndarray, " used"]:
    """The ids that occur in spellings, ascending."""
    return np.unique(np.array([id for spelling in spellings for id in spelling], np.int64))


def read_means(tensor: LazyTensor, spellings: Sequence[Sequence[int]]) -> TableRead:
    """The mean of the rows of each spelling's ids, zeros where there are none.

    The statistics are those of the whole table, which is read once.
    """
    used = used_pieces(spellings)
    table = read_table(tensor, used)
    lengths = np.array([len(spelling) for spelling in spellings], np.int64)
    flat = np.array([id for spelling in spellings for id in spelling], np.int64)
    weights = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shape = len(spellings), len(used)
    means = csr_array((weights, np.searchsorted(used, flat), starts), shape=shape) @ table.rows
    return table._replace(rows=means)


def spell_vocabulary(helper: Tokenizer, target: Tokenizer) -> Spelling:
    """Spell every token of a tokenizer with the tokens of a helper.

    Special tokens are spelled by the helper's special token with the same role, all others by
    exactly their bytes, with the space of a word start. Where the helper cannot do that, such as a
    model without capital letters, its tokenizer encodes the text of the token.
    """
    known, wanted = read_vocabulary(helper), read_vocabulary(target)
    match = match_vocabularies(known, wanted)
    matched = zip(match.target_ids.tolist(), match.source_ids.tolist(), strict=True)
    missing = zip(match.missing_ids.tolist(), spell(known, wanted, match.missing_ids), strict=True)
    exact = {id: [other] for id, other in matched} | dict(missing)
    left = {id: wanted.tokens[id] for id, pieces in exact.items() if not pieces}
    normalised = _encode(helper, known, left)
    lengths = [len(pieces) for pieces in exact.values() if pieces]
    return Spelling(
        pieces=exact | normalised,
        counts={
            "one token": lengths.count(1),
            "several": len(lengths) - lengths.count(1),
            "normalised": len(normalised),
            "none": len(left) - len(normalised),
        },
    )


def _encode(
    helper: Tokenizer, known: Vocabulary, tokens: Mapping[int, Token]
) -> dict[int, list[int]]:
    """The ids that a tokenizer gives the texts of tokens, of those that it can represent."""
    texts = {}
    for id, token in tokens.items():
        with suppress(UnicodeDecodeError):
            if not token.roles:
                texts[id] = token.bytes.decode()
    encoded = zip(texts, helper.encode_batch([*texts.values()]), strict=True)
    useless = {helper.unknown} | {id for id, token in known.tokens.items() if token.roles}
    return {
        id: ids.tolist() for id, ids in encoded if len(ids) and useless.isdisjoint(ids.tolist())
    }
