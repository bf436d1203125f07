"""Weights & Biases, for those who have it: the metrics of a run go there too."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from clp_jax.config import RunConfig
from clp_jax.errors import UserError

RUN_ID = "wandb_id"


def check_wandb(project: str | None) -> None:
    """Make sure that Weights & Biases is there if it is asked for.

    Raises:
        UserError: it is not installed.
    """
    if project is not None and find_spec("wandb") is None:
        raise UserError(
            "train.wandb needs Weights & Biases: `pip install wandb`, or leave the key out."
        )


def start_wandb(config: RunConfig, folder: Path) -> Any:
    """The run of Weights & Biases for a run folder, or None; only the first process has one.

    Every session of a run goes on with the same one, whose id is kept in the run folder. The
    package's own variables, such as ``WANDB_MODE``, work as usual.
    """
    if config.train.wandb is None or jax.process_index():
        return None
    import wandb

    file = folder / RUN_ID
    run = wandb.init(
        project=config.train.wandb,
        name=folder.name,
        id=file.read_text("utf-8") if file.exists() else None,
        resume="allow",
        dir=str(folder),
        config=config.model_dump(mode="json"),
    )
    file.write_text(run.id, "utf-8")
    run.define_metric("*", step_metric="step")
    return run
