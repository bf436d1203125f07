"""Text to token ids: one document after the other, an end-of-text token between them."""

import re
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from clp_jax.errors import UserError

_BATCH_CHARACTERS = 1 << 20
_PIECE_CHARACTERS = 1 << 16
_PIECE = re.compile(
    rf".{{1,{_PIECE_CHARACTERS}}}(?:(?<=\w)(?= \w)|\Z)|.{{1,{_PIECE_CHARACTERS}}}", re.DOTALL
)


def eos_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that separates documents.

    Raises:
        UserError: the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path} has no end-of-text token to put between "
            "documents: set eos_token in its tokenizer_config.json."
        )
    return tokenizer.eos_token_id


def token_dtype(tokenizer: PreTrainedTokenizerBase) -> np.dtype:
    """The smaller of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if max(tokenizer.get_vocab().values()) < 1 << 16 else np.uint32)


def encode_documents(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[UInt[np.ndarray, "tokens"]]:
    """Encode documents as ``eos, document 1, eos, document 2, eos, ...``, in parts of some MB.

    Nothing else is added to a document, and a text that spells a special token gets the ids of its
    letters (unless the vocabulary of a Unigram tokenizer holds the string as an ordinary piece).
    All CPU cores are used.

    A document of more than 65,536 characters is encoded in pieces, to bound the memory and to use
    all cores. They are cut before a space between two words, where byte-level and word-level
    tokenizers cut as well.

    Args:
        documents: The texts.
        tokenizer: A fast tokenizer with an end-of-text token.

    Yields:
        The ids as uint16 or uint32 (see `token_dtype`).
    """
    eos, dtype = eos_token(tokenizer), token_dtype(tokenizer)
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    yield np.array([eos], dtype)
    for batch in _batches(documents):
        encodings = plain.encode_batch_fast([text for text, _ in batch], add_special_tokens=False)
        parts = [
            np.array([*encoding.ids, eos] if ends else encoding.ids, dtype)
            for encoding, (_, ends) in zip(encodings, batch, strict=True)
        ]
        yield np.concatenate(parts)


def _batches(documents: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Pieces of documents, each with "the document ends here", in lists of some million letters."""
    batch: list[tuple[str, bool]] = []
    characters = 0
    for document in documents:
        pieces = _PIECE.findall(document) or [""]
        for count, piece in enumerate(pieces, 1):
            batch.append((piece, count == len(pieces)))
            characters += len(piece)
            if characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch
