"""A shard of a corpus: the tokens of some documents in a row, and the length of each document."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt32

from clp_jax.data.tokens import Encoder, Piece, count_words, pieces
from clp_jax.files import new_file

_BATCH_CHARACTERS = 1 << 20


def tokens_name(shard: int, shards: int) -> str:
    """File of a shard's ids, one after the other, without a header."""
    return f"tokens-{shard:05d}-of-{shards:05d}.bin"


def lengths_name(shard: int, shards: int) -> str:
    """File of a shard's document lengths, an uint32 array [documents, 2]: tokens and bytes."""
    return f"documents-{shard:05d}-of-{shards:05d}.npy"


class ShardWriter:
    """Writes documents as ``document 1, eos, document 2, eos, ...`` and counts them.

    Args:
        encoder: The tokenizer.
        sink: Takes the bytes of the ids, such as the `write` of a file.
        first: The first shard of a corpus begins with an eos.
    """

    def __init__(self, encoder: Encoder, sink: Callable[[memoryview], Any], *, first: bool):
        self._encoder = encoder
        self._sink = sink
        self._sha256 = hashlib.sha256()
        self._batch: list[Piece] = []
        self._characters = 0
        self._document_tokens = 0
        self._tokens = array("I")
        self._bytes = array("I")
        self._counts = Counter(tokens=0, documents=0, words=0, bytes=0)
        if first:
            self._write(np.array([encoder.eos], encoder.dtype))

    def add(self, document: str) -> None:
        """Write a document, now or with one of those after it."""
        size = len(document.encode())
        self._counts.update(documents=1, words=count_words(document), bytes=size)
        self._bytes.append(size)
        for piece in pieces(document):
            self._batch.append(piece)
            self._characters += len(piece.text)
            if self._characters >= _BATCH_CHARACTERS:
                self.flush()

    def facts(self) -> dict[str, Any]:
        """Number of tokens, documents, words and bytes, and the SHA-256 of the ids."""
        return {**self._counts, "sha256": self._sha256.hexdigest()}

    def lengths(self) -> UInt32[np.ndarray, "documents 2"]:
        """Tokens, its eos included, and UTF-8 bytes of each document."""
        return np.stack([np.array(self._tokens), np.array(self._bytes)], axis=1, dtype=np.uint32)

    def flush(self) -> None:
        """Write the documents that are waiting for more."""
        if not self._batch:
            return
        parts = self._encoder.encode(self._batch)
        for piece, ids in zip(self._batch, parts, strict=True):
            self._document_tokens += len(ids)
            if piece.ends:
                self._tokens.append(self._document_tokens)
                self._document_tokens = 0
        self._write(np.concatenate(parts))
        self._batch, self._characters = [], 0

    def _write(self, ids: np.ndarray) -> None:
        self._sink(ids.data)
        self._sha256.update(ids.data)
        self._counts["tokens"] += len(ids)


@contextmanager
def new_shard(folder: Path, shard: int, shards: int, encoder: Encoder) -> Iterator[ShardWriter]:
    """Write a shard of the corpus ``folder``, whole or not at all."""
    with (
        new_file(folder / tokens_name(shard, shards)) as tokens,
        new_file(folder / lengths_name(shard, shards)) as lengths,
    ):
        with tokens.open("wb") as file:
            writer = ShardWriter(encoder, file.write, first=shard == 0)
            yield writer
            writer.flush()
        np.save(lengths, writer.lengths())
