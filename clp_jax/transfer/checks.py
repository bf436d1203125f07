"""Checks of a transfer's arguments, before anything is loaded."""

from collections.abc import Sequence
from pathlib import Path

from clp_jax.checkpoint.names import local_model
from clp_jax.data.io.splits import text_splits
from clp_jax.errors import UserError
from clp_jax.files import new_path, regular_file
from clp_jax.transfer.config import TransferConfig

AUTO = "auto"


def check_transfer(
    source: str | Path, helpers: Sequence[str | Path], out: str | Path, config: TransferConfig
) -> None:
    """Check that the models, the text and the vectors can be found and ``out`` can be created.

    Raises:
        UserError: one is missing, ``out`` exists, or the method does not support the request.
    """
    check_files(config)
    if len(helpers) > 1 and config.method != AUTO:
        raise UserError("Only the method auto ranks several helpers: use auto, or name one helper.")
    for model in (source, *helpers):
        local_model(model)
    new_path(out)


def check_files(config: TransferConfig) -> None:
    """Check that the text, the vectors and the tokenizer that a transfer needs can be found.

    Raises:
        UserError: they are missing.
    """
    if config.method == "focus" and not (config.token_vectors or config.data):
        raise UserError("The method focus needs token vectors: give token_vectors or data.")
    if config.method == "wechsel" and not config.source_vectors:
        raise UserError(
            "The method wechsel needs word vectors: give source_vectors and target_vectors."
        )
    if config.tokenizer:
        local_model(config.tokenizer)
    files = (config.token_vectors, config.source_vectors, config.target_vectors, config.dictionary)
    for file in filter(None, files):
        regular_file(file)
    if config.data:
        text_splits(config.data, config.text_field)
