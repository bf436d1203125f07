"""Text to token ids, in batches of some megabytes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt
from tokenizers import Tokenizer

from clp_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PIECE_CHARACTERS = 1 << 16
_PIECE = re.compile(
    rf".{{1,{_PIECE_CHARACTERS}}}(?:(?<=\w)(?= \w)|\Z)|.{{1,{_PIECE_CHARACTERS}}}", re.DOTALL
)


class Piece(NamedTuple):
    """A part of a document, and whether the document ends with it."""

    text: str
    ends: bool


def pieces(document: str) -> Iterator[Piece]:
    """Cut a document into pieces of at most 65,536 characters: most are one piece.

    They are cut before a space between two words, where byte-level and word-level tokenizers cut
    as well. This bounds the memory and lets all cores work on one document.
    """
    end = 0
    for match in _PIECE.finditer(document):
        end = match.end()
        yield Piece(match[0], end == len(document))
    if not end:
        yield Piece("", True)


def count_words(text: str) -> int:
    """Number of parts between white space; of a long text only a little is split at a time."""
    count = 0
    for start in range(0, len(text), _PIECE_CHARACTERS):
        part = text[start : start + _PIECE_CHARACTERS]
        within_word = start and not (text[start - 1].isspace() or part[0].isspace())
        count += len(part.split()) - bool(within_word)
    return count


@dataclass(frozen=True)
class Encoder:
    """Encodes documents, each followed by the end-of-text token.

    Nothing else is added to a document, and a text that spells a special token gets the ids of its
    letters (unless the vocabulary of a Unigram tokenizer holds the string as an ordinary piece).

    Attributes:
        description: What the `tokenizers` library needs to know, as JSON: processes that only
            encode need neither transformers nor its start-up time.
        eos: The id that separates documents.
        dtype: The smaller of uint16 and uint32 that holds every id.
    """

    description: str
    eos: int
    dtype: str

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "Encoder":
        """The encoder of a fast tokenizer.

        Raises:
            UserError: the tokenizer has no end-of-text token.
        """
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"The tokenizer {tokenizer.name_or_path} has no end-of-text token to put between "
                "documents: set eos_token in its tokenizer_config.json."
            )
        plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        largest = max(tokenizer.get_vocab().values())
        return cls(
            plain.to_str(), tokenizer.eos_token_id, "uint16" if largest < 1 << 16 else "uint32"
        )

    def encode(self, batch: Sequence[Piece]) -> list[UInt[np.ndarray, "_"]]:
        """The ids of each piece, on all CPU cores; after the last piece of a document ``eos``."""
        encodings = _tokenizer(self.description).encode_batch_fast(
            [piece.text for piece in batch], add_special_tokens=False
        )
        return [
            np.array([*encoding.ids, self.eos] if piece.ends else encoding.ids, self.dtype)
            for encoding, piece in zip(encodings, batch, strict=True)
        ]


@lru_cache(maxsize=2)
def _tokenizer(description: str) -> Tokenizer:
    """Made once a process: it takes a quarter of a second."""
    tokenizer = Tokenizer.from_str(description)
    tokenizer.encode_special_tokens = True
    return tokenizer
