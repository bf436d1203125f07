"""Training of a tokenizer for a language without a helper: byte-level BPE for any script."""

import heapq
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from xxhash import xxh3_64_intdigest

from clp_jax.arguments import checked
from clp_jax.data.io.readers import read_documents
from clp_jax.errors import UserError
from clp_jax.files import new_folder
from clp_jax.limits import Inputs, LocalPath, Name, VocabularySize
from clp_jax.tokenizer import Tokenizer
from clp_jax.tokenizer.expressions import WORDS

END_OF_TEXT = "<|endoftext|>"

MOST_BYTES = 200_000_000
"""Size of the training sample in bytes."""

PIECE_CHARACTERS = 10_000
"""Longer documents are sampled in pieces of this size, so that no book dominates the sample."""

HELDOUT_EVERY = 50
"""One piece in this many is held out of training."""


@dataclass(frozen=True)
class TrainedTokenizer:
    """The result of training a tokenizer."""

    tokens: int
    """Size of the vocabulary."""
    bytes: int
    """UTF-8 bytes of the training text."""
    heldout_bytes: int
    """UTF-8 bytes of the held-out text."""
    bytes_per_token: float
    """Bytes per token on the held-out text."""

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens from {self.bytes:,} bytes of text; "
            f"{self.bytes_per_token:.3f} bytes per token on {self.heldout_bytes:,} held-out bytes"
        )


@checked
def train_tokenizer(
    inputs: Inputs, vocab_size: VocabularySize, out: LocalPath, text_field: Name = "text"
) -> TrainedTokenizer:
    """Train a byte-level BPE tokenizer and write it as a folder for transformers.

    Text is split by `WORDS`, which ``tokenizer.json`` records. The ids are ordered as in GPT-2: the
    256 bytes, the merges, then ``<|endoftext|>``, which is the bos, eos and unk token. A pair of
    tokens that occurs only once is not merged.

    All of the text is read, but only a sample is used for training: the distinct pieces of
    documents (see `PIECE_CHARACTERS`) with the smallest hashes, up to `MOST_BYTES` in total. The
    tokenizer depends only on the text, not on the order in which it is read.

    Args:
        inputs: Files, globs and hub data sets, as for `read_documents`.
        vocab_size: Number of tokens, 257 or more.
        out: Folder to write: ``vocab.json``, ``merges.txt``, ``tokenizer.json`` and
            ``tokenizer_config.json``. It must not exist yet.
        text_field: Key or column that holds the text.

    Raises:
        UserError: an input is missing or damaged, ``out`` exists, or the text is too short for this
            many tokens; nothing is written.
    """
    documents = read_documents(inputs, text_field)
    with new_folder(out) as folder:
        sample = sample_pieces(documents, MOST_BYTES)
        if len(sample) < 2:
            raise UserError(
                f"{', '.join(inputs)}: training needs more than {PIECE_CHARACTERS:,} characters of "
                "distinct text, since a part is held out: add text."
            )
        count = -(-len(sample) // HELDOUT_EVERY)
        heldout, training = sample[:count], sample[count:]
        tokenizer = _train(training, vocab_size)
        tokenizer.save_pretrained(folder)
        tokenizer.backend_tokenizer.model.save(str(folder))
    encodings = Tokenizer.of(tokenizer).encode_batch([piece.decode() for piece in heldout])
    heldout_bytes = sum(map(len, heldout))
    return TrainedTokenizer(
        tokens=len(tokenizer),
        bytes=sum(map(len, training)),
        heldout_bytes=heldout_bytes,
        bytes_per_token=heldout_bytes / sum(map(len, encodings)),
    )


def sample_pieces(documents: Iterable[str], most: int) -> list[bytes]:
    """The distinct pieces of documents with the smallest hashes, sorted by hash.

    Args:
        documents: The texts, read once as a stream.
        most: Largest total size in bytes. The order of the documents does not affect the choice.

    Returns:
        The pieces in UTF-8.
    """
    kept: list[tuple[int, bytes]] = []  # a heap, the largest hash on top
    hashes: set[int] = set()
    size, limit = 0, 1 << 64
    with tqdm(desc="read", unit="B", unit_scale=True, disable=None) as bar:
        for piece in _pieces(documents):
            bar.update(len(piece))
            hash_ = xxh3_64_intdigest(piece)
            if hash_ >= limit or hash_ in hashes:
                continue
            heapq.heappush(kept, (-hash_, piece))
            hashes.add(hash_)
            size += len(piece)
            while size > most:
                negative, dropped = heapq.heappop(kept)
                limit = -negative
                hashes.remove(limit)
                size -= len(dropped)
    return [piece for _, piece in sorted(kept, reverse=True)]


def _pieces(documents: Iterable[str]) -> Iterator[bytes]:
    for document in documents:
        for start in range(0, len(document), PIECE_CHARACTERS):
            yield document[start : start + PIECE_CHARACTERS].encode()


def _train(pieces: Sequence[bytes], vocab_size: int) -> PreTrainedTokenizerFast:
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    trained.train_from_iterator((piece.decode() for piece in pieces), trainer, len(pieces))
    vocabulary = trained.get_vocab()
    if len(vocabulary) < vocab_size - 1:
        raise UserError(
            f"The text is enough for only {len(vocabulary) + 1:,} tokens, not {vocab_size:,}: "
            "add text, or request fewer tokens."
        )
    merges: list[Any] = [*map(tuple, json.loads(trained.to_str())["model"]["merges"])]
    whole = tokenizers.Tokenizer(models.BPE(vocabulary | {END_OF_TEXT: vocab_size - 1}, merges))
    whole.pre_tokenizer = trained.pre_tokenizer
    whole.decoder = decoders.ByteLevel()
    whole.post_processor = processors.ByteLevel(trim_offsets=False)
    roles = {f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=whole, **roles)
