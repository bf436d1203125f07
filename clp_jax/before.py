"""Quick checks of a stage's inputs; nothing here imports JAX or transformers."""

from collections.abc import Sequence
from pathlib import Path

from clp_jax.chain_config import ChainConfig
from clp_jax.checkpoint.names import local_model
from clp_jax.config import DataSection, RunConfig
from clp_jax.data.corpus.folder import corpus_folder
from clp_jax.data.io.splits import text_splits
from clp_jax.errors import UserError
from clp_jax.files import is_address, writable_path
from clp_jax.transfer.checks import check_files

TRANSFER, MODEL = "transfer", "model"
"""Subfolders of a model in a chain: the transferred model and the trained one."""


def check_inputs(models: Sequence[str], text: Sequence[str] = ()) -> None:
    """Make sure that the models can exist and that the text does.

    Raises:
        UserError: a model cannot exist, or a glob of the text matches no readable file.
    """
    for model in models:
        local_model(model)
    if text:
        text_splits(text)


def check_run(config: RunConfig) -> None:
    """Make sure that the model of a run can exist and that its corpora do.

    An existing run has a copy of its model's files, so the model itself may be gone.

    Raises:
        UserError: one is missing, or the run folder cannot be created.
    """
    out = config.train.out
    if not is_address(out) and not writable_path(out).exists():
        local_model(config.model.path)
    check_corpora(config.data)


def check_corpora(section: DataSection) -> None:
    """Make sure that the corpora of a training run exist.

    Raises:
        UserError: one is missing.
    """
    for folder in (*(corpus.path for corpus in section.train), *section.validation.values()):
        corpus_folder(folder)


def check_chain(config: ChainConfig) -> None:
    """Check the inputs of those models of a chain that are not done yet.

    Raises:
        UserError: a model, a corpus, text or vectors are missing, or the folder of the chain cannot
            be created.
    """
    writable_path(config.out)
    local_model(config.helper)
    for model in config.models:
        folder = Path(config.out) / model.name
        if (folder / MODEL).exists():
            continue
        check_corpora(model.data or config.data)
        if not (folder / TRANSFER).exists():
            local_model(model.source)
            check_files(config.transfer)


def check_places(places: Sequence[str]) -> None:
    """Make sure that the local places to search for runs are folders.

    Raises:
        UserError: one is not.
    """
    for place in places:
        if not is_address(place) and not Path(place).is_dir():
            raise UserError(
                f"{place} is not a folder: name run folders, or a folder that contains some."
            )
