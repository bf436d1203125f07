"""The folder of a run: created whole, or found and compared with what is asked for."""

from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.experimental.multihost_utils import sync_global_devices

from clp_jax.checkpoint.card import CARD
from clp_jax.checkpoint.hub import MANIFEST, ORIGINS, copy_model_files
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.files import new_folder, write_json, write_text
from clp_jax.train.card import run_card
from clp_jax.train.place import RunPlace

CONFIG = "config.yaml"
RECORD = "run.json"

# What a resumed run may change: the numbers stay the same, or the same to rounding.
FREE = (
    "model.path",
    "model.revision",
    "mesh.auto",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "mesh.sequence",
    "train.out",
    "train.remat",
    "train.loss_chunk",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.keep_best",
    "train.max_skipped",
    "train.on_skipped",
    "train.watchdog_minutes",
    "train.wandb",
)


def find_run(config: RunConfig, folder: Path | epath.Path, *, resume: bool) -> bool:
    """Whether a run exists and is to be continued.

    Args:
        config: The configuration.
        folder: Its folder.
        resume: It may be continued.

    Raises:
        UserError: it exists and is not to be resumed, or was started with other settings.
    """
    out = config.train.out
    if not (folder / CONFIG).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{out} exists and is not the folder of a run: choose another.")
        return False
    if not resume:
        raise UserError(f"{out} exists already: add --resume to continue it, or choose another.")
    _refuse_changes(RunConfig.from_yaml(str(folder / CONFIG)), config)
    return True


def create_run(
    config: RunConfig,
    place: RunPlace,
    model_files: Path,
    corpora: str,
    record: dict[str, Any] | None,
) -> None:
    """Write the run folder with its configuration and the files of its model but the weights.

    Every process must call it; the first one writes.

    Args:
        config: The configuration.
        place: Where the run folder is.
        model_files: Folder with the model's configuration and tokenizer.
        corpora: What is read of each corpus, for the model card.
        record: What ``run.json`` says; only the first process needs it.

    Raises:
        UserError: the processes do not see the same folder.
    """
    folder = place.folder
    sync_global_devices("every process has looked for the run folder")
    if jax.process_index() == 0:
        with new_folder(folder) as scratch:
            (scratch / CONFIG).write_text(config.to_yaml(), "utf-8")
            write_json(scratch / RECORD, record)
            (scratch / MODEL).mkdir()
            copy_model_files(model_files, scratch / MODEL)
            card = run_card(config, corpora, scratch / MODEL)
            (scratch / MODEL / CARD).write_text(card, "utf-8")
            if config.model.init == "random":
                for file in (MANIFEST, ORIGINS):
                    (scratch / MODEL / file).unlink(missing_ok=True)
        place.publish()
    sync_global_devices("the run folder is written")
    place.fetch()
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder}: train.out must be on a disk that all hosts share.")


def continue_run(config: RunConfig, place: RunPlace, step: int) -> None:
    """Write down the settings with which a run goes on; the first process does it.

    Args:
        config: The configuration.
        place: Where the run folder is.
        step: The step that it goes on from.

    Raises:
        UserError: it has more steps already than it is to have.
    """
    if step > config.train.steps:
        raise UserError(
            f"{config.train.out} is at step {step}, beyond train.steps, which is "
            f"{config.train.steps}: set it to {step} to end the run there, or to more."
        )
    if jax.process_index() == 0:
        write_text(place.folder / CONFIG, config.to_yaml())


def _refuse_changes(old: RunConfig, new: RunConfig) -> None:
    """The number of steps may change where the learning rate does not depend on it."""
    free = {*FREE, "train.steps"} if new.optimizer.schedule == "constant" else set(FREE)
    before, after = _comparable(old), _comparable(new)
    changes = [
        f"{key} was {before[key]} and is {after[key]}"
        for key in after
        if key not in free and before[key] != after[key]
    ]
    if changes:
        raise UserError(
            f"{new.train.out} cannot be resumed with other settings: {'; '.join(changes)}. "
            "Put them back, or start a new run."
        )


def _comparable(config: RunConfig) -> dict[str, Any]:
    """The settings, without the places of the corpora, which are known by their fingerprints."""
    data = config.data
    return flat_settings(config) | {
        "data.train": data.weights or f"{len(data.train)} without weights",
        "data.validation": "none" if data.validation is None else "a corpus",
    }


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run by their dotted names, such as ``train.steps``, as JSON has them."""
    sections = config.model_dump(mode="json").items()
    return {f"{name}.{key}": value for name, keys in sections for key, value in keys.items()}
