"""Where a corpus is."""

from pathlib import Path

from clp_jax.errors import UserError
from clp_jax.files import local_path

MANIFEST = "manifest.json"


def corpus_folder(folder: str | Path) -> Path:
    """The folder of a finished corpus.

    Raises:
        UserError: ``folder`` has no manifest.
    """
    folder = local_path(folder)
    if not (folder / MANIFEST).exists():
        raise UserError(f"{folder} is not a corpus: write one with `clp-jax prepare`.")
    return folder
