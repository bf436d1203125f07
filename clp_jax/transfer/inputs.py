"""The two checkpoints a transfer starts from, opened and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from clp_jax.checkpoint.hf import checkpoint_tensors, load_model, model_tensors
from clp_jax.checkpoint.hub import load_tokenizer, model_files, read_config, resolve
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.checkpoint.tensors import FLOATS, LazyTensor, open_tensors
from clp_jax.errors import UserError
from clp_jax.models import read_decoder_config, weight_table
from clp_jax.tokenizer import Tokenizer

# How the usual decoders call the input embedding and the head, after any prefix.
EMBEDDINGS = ("wte.weight", "word_embeddings.weight", "embed_tokens.weight", "embed_in.weight")
HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A model whose tensors are read when they are asked for.

    Attributes:
        name: the folder or hub id, as the user wrote it.
        folder: where its files are.
        config: contents of its ``config.json``.
        tokenizer: its tokenizer.
        tensors: its tensors by name.
        tables: names of the tensors with a row an id: the input embedding, then the head if that
            is not tied to it.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    tokenizer: Tokenizer
    tensors: dict[str, LazyTensor]
    tables: list[str]

    def __post_init__(self) -> None:
        for name in self.tables:
            self.tokenizer.check_rows(self.tensors[name].shape[0], f"{self.name}: {name}")


def open_source(name: str | Path) -> Checkpoint:
    """Open the model whose body is kept: an architecture of :mod:`clp_jax.models`, all of it.

    Raises:
        UserError: it is missing, damaged or not supported, a tensor is not what the configuration
            says, or the tokenizer has more ids than a table has rows.
    """
    folder = _folder(name)
    config = read_config(folder)
    decoder = read_decoder_config(config, folder / "config.json")
    run = is_run_folder(name)
    return Checkpoint(
        name=str(name),
        folder=folder,
        config=config,
        tokenizer=load_tokenizer(folder),
        tensors=_run_tensors(name) if run else checkpoint_tensors(folder, decoder),
        tables=[weight.name for weight in weight_table(decoder) if weight.axes[0] == "vocab"],
    )


def open_helper(name: str | Path) -> Checkpoint:
    """Open the model whose tables give the similarities: any decoder with a usual tensor name.

    Raises:
        UserError: it is missing or damaged, has not exactly one input embedding, or the tokenizer
            has more ids than a table has rows.
    """
    folder = _folder(name)
    config = read_config(folder)
    tensors = _run_tensors(name) if is_run_folder(name) else open_tensors(folder)
    endings = {tensor: ".".join(tensor.split(".")[-2:]) for tensor in tensors}
    tables = [tensor for tensor, ending in endings.items() if ending in EMBEDDINGS]
    if len(tables) != 1:
        raise UserError(
            f"{name}: one tensor called {' or '.join(EMBEDDINGS)} was expected, the token "
            f"embedding of a decoder, but there is {', '.join(tables) or 'none'}."
        )
    if not config.get("tie_word_embeddings"):
        tables += [tensor for tensor, ending in endings.items() if ending in HEADS]
    for table in tables:
        if tensors[table].dtype not in FLOATS or len(tensors[table].shape) != 2:
            raise UserError(f"{name}: {table} is no table of floating-point numbers.")
    return Checkpoint(str(name), folder, config, load_tokenizer(folder), tensors, tables)


def _folder(name: str | Path) -> Path:
    return model_files(name) if is_run_folder(name) else resolve(name)


def _run_tensors(name: str | Path) -> dict[str, LazyTensor]:
    """The parameters of a run's newest checkpoint, which are all read."""
    check_readable_alone(name)
    return model_tensors(load_model(name))


def check_readable_alone(name: str | Path) -> None:
    """Make sure that one process can read a model while the others do not.

    Raises:
        UserError: it is a run folder, which the processes of a job read together or not at all.
    """
    if jax.process_count() > 1 and is_run_folder(name):
        raise UserError(
            f"{name} is a run folder, which one of several processes cannot read alone: write it "
            "with `clp-jax convert --to hf`, and name what that writes."
        )
