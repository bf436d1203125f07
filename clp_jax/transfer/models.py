"""The source checkpoint of a transfer, and the configuration of the new model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from clp_jax.checkpoint.hf import checkpoint_tensors, load_model, model_tensors
from clp_jax.checkpoint.hub import UNPADDED, load_tokenizer, model_files, read_config, resolve
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.errors import UserError
from clp_jax.models import read_decoder_config, weight_table
from clp_jax.tokenizer import Tokenizer

ROLES = ("bos", "eos", "pad", "unk")

# Settings of `generate` that contain ids of the source's tokens.
SOURCE_TOKENS = {
    "bad_words_ids",
    "begin_suppress_tokens",
    "force_words_ids",
    "forced_decoder_ids",
    "sequence_bias",
    "suppress_tokens",
}


def with_target_tokens(values: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """A model or generation configuration with the special token ids of ``tokenizer``.

    A role that the tokenizer lacks becomes null, since a missing key would mean the architecture's
    default id. All other settings that refer to tokens of the source are dropped.
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
        source: the source's ``config.json``.
        tokenizer: the new model's tokenizer.
        rows: rows of its table. Those after the highest id are padding; the configuration then
            records the number of real rows (`clp_jax.checkpoint.hub.UNPADDED`), and an export drops
            the rest.
        dtype: data type of the weights; None keeps the source's.
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


@dataclass(frozen=True)
class Checkpoint:
    """A model whose tensors are read on demand.

    Attributes:
        name: the folder or hub id, as the user wrote it.
        folder: the folder with its files.
        config: contents of its ``config.json``.
        tokenizer: its tokenizer.
        tensors: its tensors by name.
        tables: names of the tensors with one row per id: the input embedding, then the head unless
            it is tied.
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
    """Open the complete model whose body is kept; its architecture is one of `clp_jax.models`.

    Raises:
        UserError: the model is missing, damaged or not supported, a tensor does not match the
            configuration, or the tokenizer has more ids than a table has rows.
    """
    folder = folder_of(name)
    config = read_config(folder)
    decoder = read_decoder_config(config, folder / "config.json")
    run = is_run_folder(name)
    return Checkpoint(
        name=str(name),
        folder=folder,
        config=config,
        tokenizer=load_tokenizer(folder),
        tensors=run_tensors(name) if run else checkpoint_tensors(folder, decoder),
        tables=[weight.name for weight in weight_table(decoder) if weight.axes[0] == "vocab"],
    )


def folder_of(name: str | Path) -> Path:
    """The folder with the files of a model, run folder or hub id."""
    return model_files(name) if is_run_folder(name) else resolve(name)


def run_tensors(name: str | Path) -> dict[str, LazyTensor]:
    """All parameters of a run's newest checkpoint."""
    check_readable_alone(name)
    return model_tensors(load_model(name))


def check_readable_alone(name: str | Path) -> None:
    """Check that a single process can read a model without the others.

    Raises:
        UserError: it is a run folder, which all processes of a job must read together.
    """
    if jax.process_count() > 1 and is_run_folder(name):
        raise UserError(
            f"{name} is a run folder, which one process cannot read without the others: convert it "
            "with `clp-jax convert --to hf`, and name the result."
        )
