"""What is asked of a transfer, checked before anything is loaded."""

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
    """Make sure that the models, the text and the vectors can be there and ``out`` can be made.

    Raises:
        UserError: one is missing, ``out`` exists, or the method cannot do what is asked.
    """
    check_files(config)
    if len(helpers) > 1 and config.method != AUTO:
        raise UserError("Several helpers are ranked by the method auto: name it, or one helper.")
    for model in (source, *helpers):
        local_model(model)
    new_path(out)


def check_files(config: TransferConfig) -> None:
    """Make sure that there are the text and the vectors that a transfer starts from.

    Raises:
        UserError: they are missing.
    """
    if config.method == "focus" and not (config.token_vectors or config.data):
        raise UserError("The method focus needs vectors of tokens: give token_vectors or data.")
    if config.method == "wechsel" and not config.source_vectors:
        raise UserError("The method wechsel needs source_vectors and target_vectors.")
    files = (config.token_vectors, config.source_vectors, config.target_vectors, config.dictionary)
    for file in filter(None, files):
        regular_file(file)
    if config.data:
        text_splits(config.data, config.text_field)
