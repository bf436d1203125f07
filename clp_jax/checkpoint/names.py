"""Names of models: local folders or hub ids."""

import re
from pathlib import Path

from clp_jax.errors import UserError

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def local_model(name: str | Path) -> Path | None:
    """The folder of a model, or None if the name may be a hub id.

    Raises:
        UserError: the name can be neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists() or not HUB_ID.fullmatch(str(name)):
        raise UserError(f"{name} is not a folder: name a Hugging Face folder or a hub id.")
    return None


def model_of(name: str) -> str:
    """The model that a name stands for: the folder of a ``config.json``, or the name itself."""
    file = Path(name)
    return str(file.parent) if file.name == "config.json" and file.is_file() else name
