"""The two checkpoints a transfer starts from, and the configuration of the one that it makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from clp_jax.checkpoint.hf import checkpoint_tensors, load_model, model_tensors
from clp_jax.checkpoint.hub import UNPADDED, load_tokenizer, model_files, read_config, resolve
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.checkpoint.tensors import FLOATS, LazyTensor, open_tensors
from clp_jax.errors import UserError
from clp_jax.models import read_decoder_config, weight_table
from clp_jax.tokenizer import Tokenizer

ROLES = ("bos", "eos", "pad", "unk")

# Settings of `generate` that hold ids of the source's tokens.
SOURCE_TOKENS = {
    "bad_words_ids",
    "begin_suppress_tokens",
    "force_words_ids",
    "forced_decoder_ids",
    "sequence_bias",
    "suppress_tokens",
}


def with_target_tokens(values: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """A model or generation configuration whose token ids are those of ``tokenizer``.

    A role that the tokenizer lacks is written as null, since a missing key would mean the
    architecture's default id. Every other setting that names tokens of the source is dropped.
    """
    kept = {
        key: value
        for key, value in values.items()
        if not key.endswith("_token_id") and key not in SOURCE_TOKENS
    }
    return kept | {f"{role}_token_id": tokenizer.roles[role] for role in ROLES}


def target_config(
    source: Mapping[str, Any],
    tokenizer: Tokenizer,
    rows: int,
    dtype: str | None,
) -> dict[str, Any]:
    """The new model's ``config.json``.

    Args:
        source: the source's.
        tokenizer: the new model's.
        rows: of its table. Those behind the highest id are for no token; the configuration then
            says how many are real (`clp_jax.checkpoint.hub.UNPADDED`), and an export drops them.
        dtype: type of the weights, where one was chosen.
    """
    config = with_target_tokens(source, tokenizer) | {"vocab_size": rows}
    config.pop(UNPADDED, None)
    if tokenizer.rows < rows:
        config[UNPADDED] = tokenizer.rows
    config.pop("_name_or_path", None)
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    return config


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
