"""The folder of a run: where it is, how it is created or found, and ``run.json``, its record."""

import datetime
import hashlib
import platform
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.experimental.multihost_utils import sync_global_devices
from jaxtyping import PyTree

from clp_jax.checkpoint.card import CARD
from clp_jax.checkpoint.fingerprint import weight_checksums
from clp_jax.checkpoint.hub import MANIFEST, ORIGINS, RESULTS, copy_model_files, tokenizer_hash
from clp_jax.checkpoint.orbax import latest_step
from clp_jax.checkpoint.peft import ADAPTER
from clp_jax.checkpoint.run_folder import CHECKPOINTS, MODEL
from clp_jax.config import ModelSection, RunConfig, TeacherSection
from clp_jax.errors import UserError
from clp_jax.files import (
    cache_folder,
    is_address,
    new_folder,
    read_json,
    storage_errors,
    write_json,
    write_text,
)
from clp_jax.train.inputs import Inputs
from clp_jax.train.model_card import run_card

LEASE = "lease.json"
"""File of the run folder that names the process to which the run belongs."""


class RunStorage:
    """The run folder ``out``, and the local folder where it is read and written.

    On a disk both are the same, and all processes share it. In a bucket, such as
    ``gs://bucket/run``, only the checkpoints are written directly. All other files are in a local
    folder of each process, and the first process copies them to the bucket before each checkpoint:
    an object cannot be appended to, and a resume drops what was written after the newest
    checkpoint anyway.

    Args:
        out: The run folder, ``train.out``.
    """

    def __init__(self, out: str):
        self.out = out
        self.remote = is_address(out)
        self.folder = Path(out)
        if self.remote:
            name = hashlib.sha256(out.encode()).hexdigest()[:16]
            process = str(jax.process_index())
            self.folder = cache_folder() / "runs" / name / process / out.rstrip("/").split("/")[-1]

    @property
    def root(self) -> Any:
        """The run folder itself, on a disk or in a bucket."""
        return epath.Path(self.out)

    def fetch(self) -> None:
        """Make the local folder a copy of the one in the bucket.

        Raises:
            UserError: the bucket cannot be read.
        """
        if self.remote:
            shutil.rmtree(self.folder, ignore_errors=True)
            with storage_errors(self.out):
                _copy(self.root, self.folder)

    def publish(self) -> None:
        """Copy the files of the first process into the bucket.

        Raises:
            UserError: the bucket cannot be written.
        """
        if self.remote and jax.process_index() == 0:
            with storage_errors(self.out):
                _copy(self.folder, self.root)


def _copy(source: Any, target: Any) -> None:
    """Copy a folder without checkpoints and lease; a missing folder counts as empty."""
    if not source.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.name in (CHECKPOINTS, LEASE):
            continue
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())


CONFIG = "config.yaml"
RECORD = "run.json"

# What a resumed run may change: its results stay the same, at least to rounding.
FREE = (
    "model.path",
    "model.revision",
    "teacher.revision",
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
    """Whether a run exists and is to be resumed.

    Args:
        config: The configuration.
        folder: Its folder.
        resume: Whether it may be resumed.

    Raises:
        UserError: it exists and may not be resumed, or was started with other settings.
    """
    out = config.train.out
    if not (folder / CONFIG).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{out} exists and is not a run folder: choose another.")
        return False
    if not resume:
        raise UserError(f"{out} exists already: add --resume to continue it, or choose another.")
    _refuse_changes(RunConfig.from_yaml(str(folder / CONFIG)), config)
    return True


def create_run(
    config: RunConfig,
    place: RunStorage,
    model_files: Path,
    corpora: str,
    record: dict[str, Any] | None,
    adapter: dict[str, Any] | None = None,
) -> None:
    """Write the run folder with its configuration and its model's files except the weights.

    Every process must call it; the first one writes.

    Args:
        config: The configuration.
        place: Where the run folder is.
        model_files: Folder with the model's configuration and tokenizer.
        corpora: The table of the corpora, for the model card.
        record: The contents of ``run.json``; only the first process needs them.
        adapter: The description of its adapters, if it trains any.

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
            (scratch / MODEL / RESULTS).unlink(missing_ok=True)  # Of the model it starts from.
            if adapter is not None:
                write_json(scratch / MODEL / ADAPTER, adapter)
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


def continue_run(config: RunConfig, place: RunStorage, step: int) -> None:
    """Write the settings with which a run resumes; the first process does it.

    Args:
        config: The configuration.
        place: Where the run folder is.
        step: The step from which it resumes.

    Raises:
        UserError: it already has more steps than configured.
    """
    if step > config.train.steps:
        raise UserError(
            f"{config.train.out} is at step {step}, beyond train.steps, which is "
            f"{config.train.steps}: set it to {step} to end the run there, or higher."
        )
    if jax.process_index() == 0:
        write_text(place.folder / CONFIG, config.to_yaml())


def _refuse_changes(old: RunConfig, new: RunConfig) -> None:
    """Refuse other settings; train.steps may change if nothing before the new end depends on it."""
    extensible = new.optimizer.schedule == "constant" and new.teacher.path is None
    free = {*FREE, "train.steps"} if extensible else set(FREE)
    before, after = _comparable(old), _comparable(new)
    changes = [
        f"{key} was {before[key]} and is {after[key]}"
        for key in after
        if key not in free and before[key] != after[key]
    ]
    if changes:
        raise UserError(
            f"{new.train.out} cannot be resumed with other settings: {'; '.join(changes)}. "
            "Restore them, or start a new run."
        )


def _comparable(config: RunConfig) -> dict[str, Any]:
    """The settings without the paths of corpora and teacher, which are known by checksums."""
    data = config.data
    names = ", ".join(data.validation) or "a corpus"
    return flat_settings(config) | {
        "data.train": data.weights or f"{len(data.train)} without weights",
        "data.validation": names if data.validation else "none",
        "teacher.path": "none" if config.teacher.path is None else "a model",
    }


def flat_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run by dotted name, such as ``train.steps``, ready for JSON."""
    sections = config.model_dump(mode="json").items()
    return {f"{name}.{key}": value for name, keys in sections for key, value in keys.items()}


PACKAGES = ("clp-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def run_record(config: RunConfig, inputs: Inputs, shapes: PyTree) -> dict[str, Any]:
    """The provenance of a run, ready for JSON: command, versions, devices, model, weights, data.

    Args:
        config: The run's configuration.
        inputs: Its inputs.
        shapes: Its parameters, or their ``jax.ShapeDtypeStruct``.
    """
    now = datetime.datetime.now(datetime.UTC)
    return {
        "started": now.isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "versions": _versions(),
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        "weights": _weights(config.model),
        "teacher_weights": _weights(config.teacher),
        "snapshot": inputs.files.name if inputs.files.parent.name == "snapshots" else None,
        "hashes": _hashes(inputs),
    }


def read_record(folder: str | Path) -> dict[str, Any]:
    """The record of a run: the number of ``parameters``, and ``hashes`` and ``versions`` by name.

    Raises:
        UserError: it is missing or not valid.
    """
    file = f"{folder}/{RECORD}"
    record = {"versions": {}} | read_json(file)
    by_name = [record.get(key) for key in ("hashes", "versions")]
    if not (
        isinstance(record.get("parameters"), int)
        and all(isinstance(values, dict) for values in by_name)
        and isinstance(record["hashes"].get("tokenizer"), str)
    ):
        raise UserError(
            f"{file} is not the record of a run: parameters, hashes or the hash of the tokenizer "
            "are missing. Restore the file from a copy, or start a new run."
        )
    return record


def compare_record(folder: Path, config: RunConfig, inputs: Inputs) -> None:
    """Make sure that a run resumes with the data it was started with; print changed versions.

    Raises:
        UserError: a corpus or a tokenizer has changed, or the weights of the model or the teacher
            have and the run still needs them: it has no checkpoint yet, or still learns from them.
    """
    before = read_record(folder)
    for name, hash_ in _hashes(inputs).items():
        if before["hashes"].get(name) != hash_:
            raise UserError(
                f"{folder} was started with another {name} (its hash was "
                f"{before['hashes'].get(name)}, not {hash_}): restore it, or start a new run."
            )
    reached = latest_step(config.train.out)
    learns = inputs.teacher is not None and reached != config.train.steps
    needed: list[tuple[str, ModelSection | TeacherSection, str]] = []
    if reached is None or learns:
        why = "has no checkpoint yet" if reached is None else "compares with them at its end"
        needed.append(("weights", config.model, why))
    if learns:
        needed.append(("teacher_weights", config.teacher, "learns from them"))
    for key, section, why in needed:
        if _weights(section) != before.get(key):
            raise UserError(
                f"{folder} was started with other weights than those in {section.path}, and {why}: "
                "restore the old ones, or start a new run."
            )
    versions = before["versions"]
    changes = [
        f"{package} was {versions[package]} and is {now}"
        for package, now in _versions().items()
        if versions.get(package, now) != now
    ]
    if changes and jax.process_index() == 0:
        print(f"{folder}: {', '.join(changes)}: results may differ in rounding.", flush=True)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _hashes(inputs: Inputs) -> dict[str, str]:
    """The hashes of everything that decides which tokens are read, wherever the corpora are."""
    hashes = {
        f"training corpus {number}": corpus.fingerprint
        for number, corpus in enumerate(inputs.corpora, 1)
    }
    for name, corpus in inputs.validation.items():
        hashes[f"validation corpus {name}".rstrip()] = corpus.fingerprint
    if inputs.teacher is not None:
        hashes["tokenizer of the teacher"] = tokenizer_hash(inputs.teacher.tokenizer)
    return hashes | {"tokenizer": inputs.corpora[0].tokenizer_hash}


def _weights(section: ModelSection | TeacherSection) -> dict[str, str]:
    """The sums of the weights that a run reads; empty if it reads none."""
    drawn = isinstance(section, ModelSection) and section.init == "random"
    return {} if drawn or not section.path else weight_checksums(section.path, section.revision)
