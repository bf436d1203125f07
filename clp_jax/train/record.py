"""``run.json``: what a run was started with, so that it is known later and not mixed with other."""

import datetime
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from clp_jax.checkpoint.hub import resolve
from clp_jax.checkpoint.orbax import latest_step
from clp_jax.checkpoint.run_folder import CHECKPOINTS, is_run_folder
from clp_jax.checkpoint.sums import SUMS, file_sum
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.files import read_json
from clp_jax.train.folder import RECORD
from clp_jax.train.inputs import Inputs

WEIGHTS = (".safetensors", ".bin")
PACKAGES = ("clp-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def run_record(config: RunConfig, inputs: Inputs, shapes: PyTree) -> dict[str, Any]:
    """What a run is started with, as JSON: command, versions, devices, model, weights and data.

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
        "weights": _weights(config),
        "snapshot": inputs.files.name if inputs.files.parent.name == "snapshots" else None,
        "hashes": _hashes(inputs),
    }


def read_record(folder: str | Path) -> dict[str, Any]:
    """The record of a run: the number of ``parameters``, and ``hashes`` and ``versions`` by name.

    Raises:
        UserError: it is missing, or no such record.
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
            "are missing. Bring the file back from a copy, or start a new run."
        )
    return record


def compare_record(folder: Path, config: RunConfig, inputs: Inputs) -> None:
    """See that a run goes on with the data it was started with; tell of other versions.

    Raises:
        UserError: a corpus or the tokenizer is another one, or so are the weights of the model and
            the run has no checkpoint yet.
    """
    before = read_record(folder)
    for name, hash_ in _hashes(inputs).items():
        if before["hashes"].get(name) != hash_:
            raise UserError(
                f"{folder} was started with another {name}, of hash {before['hashes'].get(name)} "
                f"and not {hash_}: bring the old one back, or start a new run."
            )
    if latest_step(config.train.out) is None and _weights(config) != before.get("weights"):
        raise UserError(
            f"{folder} was started with other weights than those in {config.model.path}, and has "
            "no checkpoint yet: bring the old ones back, or start a new run."
        )
    versions = before["versions"]
    changes = [
        f"{package} was {versions[package]} and is {now}"
        for package, now in _versions().items()
        if versions.get(package, now) != now
    ]
    if changes and jax.process_index() == 0:
        print(f"{folder}: {', '.join(changes)}: numbers may differ in their rounding.", flush=True)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _hashes(inputs: Inputs) -> dict[str, str]:
    """The hashes of all that decides which tokens are read, wherever the corpora are."""
    hashes = {
        f"training corpus {number}": corpus.fingerprint
        for number, corpus in enumerate(inputs.corpora, 1)
    }
    if inputs.validation is not None:
        hashes["validation corpus"] = inputs.validation.fingerprint
    return hashes | {"tokenizer": inputs.corpora[0].tokenizer_hash}


def _weights(config: RunConfig) -> dict[str, str]:
    """XXH3 sums of the files with the weights that the run starts from; none if it draws them.

    Those of the run of another model are vouched for by the sums of its newest checkpoint.
    """
    if config.model.init == "random":
        return {}
    if is_run_folder(config.model.path):
        checkpoint = Path(config.model.path) / CHECKPOINTS / str(latest_step(config.model.path))
        files = list(checkpoint.glob(SUMS))
    else:
        files = [*resolve(config.model.path, config.model.revision).iterdir()]
        files = [file for file in files if file.suffix in WEIGHTS]
    return {file.name: file_sum(file) for file in sorted(files)}
