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

from clp_jax.data.count import count_words
from clp_jax.files import new_file
from clp_jax.tokenizer import Tokenizer

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
        tokenizer: The tokenizer.
        sink: Takes the bytes of the ids, such as the `write` of a file.
        first: The first shard of a corpus begins with an eos.
    """

    def __init__(self, tokenizer: Tokenizer, sink: Callable[[memoryview], Any], *, first: bool):
        self._tokenizer = tokenizer
        self._sink = sink
        self._sha256 = hashlib.sha256()
        self._batch: list[str] = []
        self._characters = 0
        self._tokens = array("I")
        self._bytes = array("I")
        self._counts = Counter(tokens=0, documents=0, words=0, bytes=0, unknown_bytes=0)
        if first:
            self._write(np.array([tokenizer.separator()], tokenizer.dtype))

    def add(self, document: str) -> None:
        """Write a document, now or with one of those after it."""
        size = len(document.encode())
        self._counts.update(documents=1, words=count_words(document), bytes=size)
        self._bytes.append(size)
        self._batch.append(document)
        self._characters += len(document)
        if self._characters >= _BATCH_CHARACTERS:
            self.flush()

    def facts(self) -> dict[str, Any]:
        """Number of tokens, documents, words, bytes and unknown bytes; the SHA-256 of the ids."""
        return {**self._counts, "sha256": self._sha256.hexdigest()}

    def lengths(self) -> UInt32[np.ndarray, "documents 2"]:
        """Tokens, its eos and what opens it included, and UTF-8 bytes of each document."""
        return np.stack([np.array(self._tokens), np.array(self._bytes)], axis=1, dtype=np.uint32)

    def flush(self) -> None:
        """Write the documents that are waiting for more."""
        if not self._batch:
            return
        found = self._tokenizer.encode_documents(self._batch)
        unknown = self._tokenizer.unknown
        for document, ids in zip(self._batch, found, strict=True):
            self._tokens.append(len(ids))
            if unknown is not None and unknown in ids:
                self._counts["unknown_bytes"] += self._tokenizer.unknown_bytes(document)
        self._write(np.concatenate(found))
        self._batch, self._characters = [], 0

    def _write(self, ids: np.ndarray) -> None:
        self._sink(ids.data)
        self._sha256.update(ids.data)
        self._counts["tokens"] += len(ids)


@contextmanager
def new_shard(folder: Path, shard: int, shards: int, tokenizer: Tokenizer) -> Iterator[ShardWriter]:
    """Write a shard of the corpus ``folder``, whole or not at all."""
    with (
        new_file(folder / tokens_name(shard, shards)) as tokens,
        new_file(folder / lengths_name(shard, shards)) as lengths,
    ):
        with tokens.open("wb") as file:
            writer = ShardWriter(tokenizer, file.write, first=shard == 0)
            yield writer
            writer.flush()
        np.save(lengths, writer.lengths())
