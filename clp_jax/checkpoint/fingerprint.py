"""What a model holds, so that it is known wherever its folder is."""

import hashlib
import json
from pathlib import Path

from clp_jax.checkpoint.checksums import SUMS, file_checksum
from clp_jax.checkpoint.hub import (
    load_tokenizer,
    model_files,
    read_config,
    resolve,
    tokenizer_hash,
)
from clp_jax.checkpoint.names import local_model
from clp_jax.checkpoint.orbax import latest_step
from clp_jax.checkpoint.run_folder import CHECKPOINTS, is_run_folder

WEIGHTS = (".safetensors", ".bin")


def weight_checksums(name: str | Path, revision: str | None = None) -> dict[str, str]:
    """XXH3 sums of a model's weight files by name; those of a run are of its newest checkpoint.

    Raises:
        UserError: there is no such model.
    """
    if is_run_folder(name):
        files = list((Path(name) / CHECKPOINTS / str(latest_step(name))).glob(SUMS))
    else:
        files = [file for file in resolve(name, revision).iterdir() if file.suffix in WEIGHTS]
    return {file.name: file_checksum(file) for file in sorted(files)}


def model_fingerprint(name: str | Path) -> str:
    """SHA-256 of a local model's configuration, tokenizer and weights; the name of a hub model.

    Raises:
        UserError: the model is missing, or its configuration or tokenizer is damaged.
    """
    if local_model(name) is None:
        return str(name)
    files = model_files(name)
    config = read_config(files) if (files / "config.json").exists() else {}
    parts = [config, tokenizer_hash(load_tokenizer(files)), weight_checksums(name)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
