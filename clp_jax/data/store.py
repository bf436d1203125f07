"""The corpus: a flat file of tokens, mapped into memory, and a manifest that describes it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, UInt
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from clp_jax.checkpoint.hub import load_tokenizer, tokenizer_hash
from clp_jax.data.readers import read_documents
from clp_jax.data.tokens import encode_documents, eos_token, token_dtype
from clp_jax.errors import UserError
from clp_jax.files import new_folder, read_json, write_json

MANIFEST = "manifest.json"
TOKENS = "tokens.bin"
_NUMBERS = ("documents", "words", "bytes", "eos_id")
_HASHES = ("fingerprint", "tokenizer_hash")


@dataclass(frozen=True)
class Corpus:
    """Tokenised text: ``eos, document 1, eos, document 2, eos, ...``.

    Attributes:
        tokens: All ids, uint16 or uint32; mapped from the file where there is one.
        documents: Number of documents.
        words: Number of words, that is, of parts between white space.
        bytes: Number of UTF-8 bytes of the text.
        eos_id: The id between documents.
        fingerprint: SHA-256 of the tokens.
        tokenizer_hash: SHA-256 of the tokenizer (see `clp_jax.checkpoint.hub`).
    """

    tokens: UInt[np.ndarray, "tokens"]
    documents: int
    words: int
    bytes: int
    eos_id: int
    fingerprint: str
    tokenizer_hash: str

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Map a corpus written by `prepare_corpus`; no token is read yet.

        Raises:
            UserError: it is not the folder of a corpus, or a file of it is damaged.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).exists():
            raise UserError(f"{folder} is not a corpus: write one with `clp-jax prepare`.")
        manifest = read_json(folder / MANIFEST)
        try:
            dtype, count = np.dtype(manifest["dtype"]), int(manifest["tokens"])
            facts: dict[str, Any] = {key: int(manifest[key]) for key in _NUMBERS}
            facts |= {key: str(manifest[key]) for key in _HASHES}
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{folder / MANIFEST} is damaged: write the corpus again with `clp-jax prepare`."
            ) from None
        file = folder / TOKENS
        size = file.stat().st_size if file.exists() else 0
        if size != count * dtype.itemsize:
            raise UserError(
                f"{file} has {size} bytes where {MANIFEST} promises {count * dtype.itemsize}: "
                "copy it again, or write the corpus again with `clp-jax prepare`."
            )
        return cls(np.memmap(file, dtype, "r"), **facts)

    @classmethod
    def from_documents(
        cls, documents: Iterable[str], tokenizer: PreTrainedTokenizerBase
    ) -> "Corpus":
        """Tokenise ``documents`` into memory.

        Raises:
            UserError: there is no document, or the tokenizer has no end-of-text token.
        """
        tally = _Tally()
        tokens = np.concatenate(list(tally.encode(documents, tokenizer)))
        return cls(tokens, **tally.facts(tokenizer))

    def windows(self, length: int) -> int:
        """Number of windows of ``length`` predicted tokens; the last may be partly filled."""
        return -(-(len(self.tokens) - 1) // length)

    def window(
        self, index: int, length: int
    ) -> tuple[Int32[np.ndarray, "{length}+1"], Bool[np.ndarray, "{length}"]]:
        """The tokens of one window and a mask of its predictions.

        Neighbours share one token, the last of the one and the first of the other: over all windows
        every token but the very first is predicted exactly once.

        Returns:
            The ids, filled up with zeros, and whether the id after each position is a real one.
        """
        found = self.tokens[index * length : (index + 1) * length + 1]
        tokens = np.zeros(length + 1, np.int32)
        tokens[: len(found)] = found
        return tokens, np.arange(1, length + 1) < len(found)


def prepare_corpus(
    inputs: Sequence[str],
    tokenizer: str | Path,
    out: str | Path,
    *,
    text_field: str = "text",
    limit: int | None = None,
) -> dict[str, Any]:
    """Tokenise files or hub data sets once, for training and evaluation.

    The memory needed does not depend on the size of the corpus.

    Args:
        inputs: Files, globs and hub data sets (see `read_documents`).
        tokenizer: Folder or hub id of the tokenizer.
        out: Folder to write: ``tokens.bin`` and ``manifest.json``. It must not exist yet.
        text_field: Key or column that holds the text.
        limit: Read only so many documents: a hub data set can be larger than the disk.

    Returns:
        The manifest.

    Raises:
        UserError: the input, the tokenizer or ``out`` is not as it should be; nothing is written.
    """
    if limit is not None and limit < 1:
        raise UserError(f"The limit of {limit} documents leaves none: it must be 1 or more.")
    documents = islice(read_documents(inputs, text_field), limit)
    about = {"inputs": list(inputs), "text_field": text_field, "tokenizer": str(tokenizer)}
    return write_corpus(documents, load_tokenizer(tokenizer), out, about)


def write_corpus(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Tokenise ``documents`` into the folder ``out``, as `prepare_corpus` does.

    Args:
        documents: The texts; they are read once, as a stream.
        tokenizer: A fast tokenizer with an end-of-text token.
        out: Folder to write; it must not exist yet.
        about: Where the documents come from: further entries of the manifest.

    Returns:
        The manifest.

    Raises:
        UserError: there is no document, ``out`` exists, or the tokenizer has no end-of-text token.
    """
    tally = _Tally()
    with (
        new_folder(out) as folder,
        (folder / TOKENS).open("wb") as file,
        tqdm(desc="tokenise", unit=" tokens", unit_scale=True, disable=None) as bar,
    ):
        for tokens in tally.encode(documents, tokenizer):
            file.write(tokens.data)
            bar.update(len(tokens))
        manifest = {
            "tokens": tally.tokens,
            "dtype": str(token_dtype(tokenizer)),
            **tally.facts(tokenizer),
            **about,
            "versions": {name: version(name) for name in ("clp-jax", "tokenizers", "transformers")},
        }
        write_json(folder / MANIFEST, manifest)
    return manifest


class _Tally:
    """What is counted while the documents of a corpus stream past."""

    def __init__(self) -> None:
        self.tokens = self.documents = self.words = self.bytes = 0
        self.sha256 = hashlib.sha256()

    def encode(
        self, documents: Iterable[str], tokenizer: PreTrainedTokenizerBase
    ) -> Iterator[UInt[np.ndarray, "tokens"]]:
        for tokens in encode_documents(self._read(documents), tokenizer):
            self.tokens += len(tokens)
            self.sha256.update(tokens.data)
            yield tokens
        if not self.documents:
            raise UserError("The corpus is empty: it needs at least one document.")

    def _read(self, documents: Iterable[str]) -> Iterator[str]:
        for document in documents:
            self.documents += 1
            self.words += len(document.split())
            self.bytes += len(document.encode())
            yield document

    def facts(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "words": self.words,
            "bytes": self.bytes,
            "eos_id": eos_token(tokenizer),
            "fingerprint": self.sha256.hexdigest(),
            "tokenizer_hash": tokenizer_hash(tokenizer),
        }
