"""Where a training run keeps its checkpoints and its model's other files."""

from pathlib import Path

CHECKPOINTS = "checkpoints"
MODEL = "model"
"""Configuration, tokenizer and card, as in a Hugging Face folder."""


def is_run_folder(folder: str | Path) -> bool:
    """Whether a folder holds Orbax checkpoints, as `clp-jax train` writes them."""
    return (Path(folder) / CHECKPOINTS).is_dir()
