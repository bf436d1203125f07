"""The inputs of the quickstart: text files and untrained models."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from clp_jax import files
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.checkpoint.new import gpt2_config
from clp_jax.data.io.readers import read_documents
from clp_jax.errors import UserError
from clp_jax.quickstart.sentences import Language, documents

END_OF_TEXT = "<|endoftext|>"
HELDOUT_SEED, TRAINING_SEEDS = 0, {"en": 1, "de": 2}
LEAST_DOCUMENTS = 20
LONGEST_DOCUMENT = 10_000
MOST_READ = 200_000_000
"""Characters used at most: ``LONGEST_DOCUMENT`` of each document, ``MOST_READ`` of a corpus."""


def made_up_text(
    language: Language, characters: int, heldout_characters: int
) -> tuple[list[str], list[str]]:
    """Training and held-out documents from `clp_jax.quickstart.sentences`."""
    return (
        take(documents(language, TRAINING_SEEDS[language]), characters),
        take(documents(language, HELDOUT_SEED), heldout_characters),
    )


def own_text(
    files: Iterator[str], name: str, characters: int, heldout_characters: int
) -> tuple[list[str], list[str]]:
    """Training and held-out documents drawn from a whole corpus, always the same ones.

    Args:
        files: The documents.
        name: Name of the corpus in an error.
        characters: Approximate amount of text to train on; it may be less.
        heldout_characters: Approximate amount to hold out, at most a tenth of the documents.

    Raises:
        UserError: there are too few documents.
    """
    found = take((document[:LONGEST_DOCUMENT] for document in files), MOST_READ)
    if len(found) < LEAST_DOCUMENTS:
        raise UserError(
            f"{name} holds {len(found)} documents, but the quickstart needs {LEAST_DOCUMENTS} to "
            "hold some out: split it into more .txt files or into the lines of a .jsonl file."
        )
    random.Random(0).shuffle(found)
    tenth = len(found) // 10
    heldout = take(found[:tenth], heldout_characters)
    return take(found[tenth:], characters), heldout


def take(documents: Iterable[str], characters: int) -> list[str]:
    """The first documents with at least ``characters`` characters in total, or all."""
    taken: list[str] = []
    for document in documents:
        if characters <= 0:
            break
        taken.append(document)
        characters -= len(document)
    return taken


def write_text(documents: list[str], file: Path) -> None:
    """Write documents as the lines of a ``.jsonl`` file."""
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    files.write_text(file, "".join(lines))


def write_new_model(
    folder: Path,
    text: Path,
    *,
    vocabulary: int,
    positions: int,
    layers: int,
    width: int,
    heads: int,
) -> None:
    """Write a GPT-2 configuration and a byte-level BPE tokenizer trained on ``text``.

    The folder has no weights: `clp_jax.train_model` draws them (``init: random``).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_documents([str(text)]), trainer)
    with files.new_folder(folder) as scratch:
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=END_OF_TEXT,
            eos_token=END_OF_TEXT,
            unk_token=END_OF_TEXT,
            model_max_length=positions,
        ).save_pretrained(scratch)
        sizes = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": positions}
        files.write_json(scratch / "config.json", gpt2_config(load_tokenizer(scratch), **sizes))
