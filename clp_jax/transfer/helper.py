"""The helper of a transfer: rows and their tokenizer, whatever the architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clp_jax.checkpoint.hub import load_tokenizer, model_files, read_config, tokenizer_hash
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.checkpoint.tensors import FLOAT_NAMES, FLOATS, LazyTensor, open_tensors
from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer.models import Checkpoint, folder_of, run_tensors
from clp_jax.transfer.pieces import Spelling, spell_vocabulary

SHARED = "shared"
"""The module of encoder-decoders whose rows are the input of both halves, as in T5 and mBART."""

EMBEDDINGS = (
    "embed_tokens",  # Llama, Gemma, Qwen, OPT
    "word_embeddings",  # BERT, RoBERTa, XLM-R, BLOOM, Falcon
    "wte",  # GPT-2, MPT
    "embed_in",  # GPT-NeoX
    "tok_embeddings",  # ModernBERT
    "embeddings",  # XLM, Mamba
    "word_embedding",  # XLNet
    "tokens_embed",  # GPT
)
"""Modules of transformers that hold the input embedding."""

HEADS = ("lm_head", "embed_out")
"""Modules that hold the head of a decoder."""

PADDING = 1024
"""Rows that a table may have in addition to those of the tokenizer, if no configuration says."""


@dataclass(frozen=True)
class Helper(Checkpoint):
    """A model whose tables supply the similarities.

    Attributes:
        target: the new model's tokenizer: the helper's own, or another.
        target_name: the folder or hub id that it is from.
        target_folder: the folder with its files.
        spelling: how the helper's tokens spell those of another tokenizer; None for its own.
    """

    target: Tokenizer
    target_name: str
    target_folder: Path
    spelling: Spelling | None


def open_helper(name: str | Path, tokenizer: str | Path | None = None) -> Helper:
    """Open a helper: a model of any architecture, or a folder of one table and a tokenizer.

    Args:
        name: folder, run folder or hub id.
        tokenizer: folder or hub id of the new model's tokenizer; None for the helper's own.

    Raises:
        UserError: the model or a tokenizer is missing or damaged, no tensor or more than one may be
            the input embedding, or the tokenizer has more ids than a table has rows.
    """
    folder = folder_of(name)
    config = read_config(folder) if (folder / "config.json").exists() else {}
    own = load_tokenizer(folder)
    tensors = run_tensors(name) if is_run_folder(name) else open_tensors(folder)
    place = name if tokenizer is None else tokenizer
    target = own if tokenizer is None else load_tokenizer(tokenizer)
    same = tokenizer_hash(own) == tokenizer_hash(target)
    return Helper(
        name=str(name),
        folder=folder,
        config=config,
        tokenizer=own,
        tensors=tensors,
        tables=find_tables(tensors, config, own.rows, str(name)),
        target=target,
        target_name=str(place),
        target_folder=model_files(place),
        spelling=None if same else spell_vocabulary(own, target),
    )


def find_tables(
    tensors: Mapping[str, LazyTensor], config: Mapping[str, Any], rows: int, name: str
) -> list[str]:
    """The names of a model's input embedding and, unless it is tied, of its head.

    The embedding has one of the names that transformers uses. Where none has, it is the only
    matrix, or the only one with as many rows as the vocabulary.

    Args:
        tensors: the model's tensors by name.
        config: contents of its ``config.json``; may be empty.
        rows: the tokenizer's highest id plus one.
        name: the model's name in errors.

    Raises:
        UserError: no tensor or more than one may be the embedding, or it is not a matrix of
            floating-point numbers.
    """
    heads = _of_modules(tensors, HEADS)
    matrices = [
        tensor for tensor, value in tensors.items() if len(value.shape) == 2 and tensor not in heads
    ]
    found = (
        _of_modules(tensors, (SHARED,))
        or _of_modules(tensors, EMBEDDINGS)
        or (matrices if len(matrices) == 1 else _by_rows(tensors, matrices, config, rows))
    )
    if len(found) != 1:
        raise UserError(
            f"{name}: expected one input embedding, named like {EMBEDDINGS[0]}.weight or with as "
            f"many rows as the vocabulary, but found {' and '.join(found) or 'none'}: keep one "
            f"table, as {EMBEDDINGS[0]}.weight, in a folder with the tokenizer."
        )
    tables = found if config.get("tie_word_embeddings") else [*found, *heads[:1]]
    for table in tables:
        tensor = tensors[table]
        if tensor.dtype not in FLOATS or len(tensor.shape) != 2:
            raise UserError(
                f"{name}: {table} is {tensor.dtype} of shape {tensor.shape}, but must be a matrix "
                f"of one of {FLOAT_NAMES}."
            )
    return tables


def _of_modules(tensors: Mapping[str, LazyTensor], modules: tuple[str, ...]) -> list[str]:
    """The weights of modules with these names, after any prefix."""
    split = {tensor: ["", *tensor.split(".")][-2:] for tensor in tensors}
    return [
        tensor for tensor, (module, kind) in split.items() if module in modules and kind == "weight"
    ]


def _by_rows(
    tensors: Mapping[str, LazyTensor], matrices: list[str], config: Mapping[str, Any], rows: int
) -> list[str]:
    """The matrices with one row per id of the vocabulary."""
    size = config.get("vocab_size")
    allowed = range(size, size + 1) if isinstance(size, int) else range(rows, rows + PADDING)
    return [tensor for tensor in matrices if tensors[tensor].shape[0] in allowed]
