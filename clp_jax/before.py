"""What can be told of a stage's inputs at once: nothing here imports JAX or transformers."""

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
"""Folders of a model of a chain: transferred, and trained."""


def check_inputs(models: Sequence[str], text: Sequence[str] = ()) -> None:
    """Make sure that there can be models, and that there is text.

    Raises:
        UserError: a model cannot be there, or a glob of the text matches no file that can be read.
    """
    for model in models:
        local_model(model)
    if text:
        text_splits(text)


def check_run(config: RunConfig) -> None:
    """Make sure that there can be the model and the corpora of a run.

    A run that is there already brings its model's files, so that the model may be gone.

    Raises:
        UserError: one is missing, or the folder of the run cannot be made.
    """
    out = config.train.out
    if not is_address(out) and not writable_path(out).exists():
        local_model(config.model.path)
    check_corpora(config.data)


def check_corpora(section: DataSection) -> None:
    """Make sure that there are the corpora of a training.

    Raises:
        UserError: one is missing.
    """
    for folder in filter(None, (*(corpus.path for corpus in section.train), section.validation)):
        corpus_folder(folder)


def check_chain(config: ChainConfig) -> None:
    """Make sure that there can be what the models of a chain that are not done yet are made of.

    Raises:
        UserError: a model, a corpus, text or vectors are missing, or the folder of the chain cannot
            be made.
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
    """Make sure that the places on this machine in which runs are looked for are folders.

    Raises:
        UserError: one is not.
    """
    for place in places:
        if not is_address(place) and not Path(place).is_dir():
            raise UserError(f"{place} is not a folder: name run folders, or a folder with some.")
