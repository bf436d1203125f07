"""A tokenizer for a language that has no helper yet: byte-level BPE, for text of any script."""

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
"""Size of the sample that is trained on."""

PIECE_CHARACTERS = 10_000
"""Longer documents are sampled in pieces of this size, so that no book outweighs the rest."""

HELDOUT_EVERY = 50
"""One piece in so many is kept out of the training."""


@dataclass(frozen=True)
class TrainedTokenizer:
    """What came of a training."""

    tokens: int
    """Size of the vocabulary."""
    bytes: int
    """UTF-8 bytes of the text trained on."""
    heldout_bytes: int
    """Of the text kept out of the training."""
    bytes_per_token: float
    """On the text kept out."""

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens from {self.bytes:,} bytes of text; "
            f"{self.bytes_per_token:.3f} bytes a token on {self.heldout_bytes:,} bytes kept out"
        )


@checked
def train_tokenizer(
    inputs: Inputs, vocab_size: VocabularySize, out: LocalPath, text_field: Name = "text"
) -> TrainedTokenizer:
    """Train a byte-level BPE and write it: what it writes loads wherever GPT-2's does.

    Text is split as `WORDS` says, and ``tokenizer.json`` says so. The ids are laid out as GPT-2's:
    first the 256 bytes, then the merges, at last ``<|endoftext|>``, which is the bos, eos and unk
    token. A pair of tokens that occurs only once is not merged.

    All of the text is read, and a sample of it is trained on: the pieces of documents (see
    `PIECE_CHARACTERS`) with the smallest hashes, `MOST_BYTES` of them together, each text once.
    The tokenizer depends on the text alone, and not on the order in which it is read.

    Args:
        inputs: Files, globs and hub data sets, as `read_documents` takes them.
        vocab_size: Number of tokens, 257 or more.
        out: Folder to write: ``vocab.json``, ``merges.txt``, ``tokenizer.json`` and
            ``tokenizer_config.json``. It must not exist yet.
        text_field: Key or column that holds the text.

    Raises:
        UserError: an input or ``out`` is not as it should be, or the text is too short for so many
            tokens; nothing is written.
    """
    documents = read_documents(inputs, text_field)
    with new_folder(out) as folder:
        sample = sample_pieces(documents, MOST_BYTES)
        if len(sample) < 2:
            raise UserError(
                f"{', '.join(inputs)}: no more than {PIECE_CHARACTERS:,} characters of different "
                "text, a part of which is to be kept out: name more text."
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
    """The pieces of documents with the smallest hashes, in their order, each once.

    Args:
        documents: The texts; they are read once, as a stream.
        most: Bytes that are kept. Which pieces these are does not depend on their order.

    Returns:
        The pieces in UTF-8.
    """
    kept: list[tuple[int, bytes]] = []  # a heap with the largest hash on top
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
            f"The text gives no more than {len(vocabulary) + 1:,} tokens, not {vocab_size:,}: "
            "name more text or ask for fewer tokens."
        )
    merges: list[Any] = [*map(tuple, json.loads(trained.to_str())["model"]["merges"])]
    whole = tokenizers.Tokenizer(models.BPE(vocabulary | {END_OF_TEXT: vocab_size - 1}, merges))
    whole.pre_tokenizer = trained.pre_tokenizer
    whole.decoder = decoders.ByteLevel()
    whole.post_processor = processors.ByteLevel(trim_offsets=False)
    roles = {f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=whole, **roles)
