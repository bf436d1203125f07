"""Finds a model by its folder or hub id, and reads its configuration and its tokenizer."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clp_jax.checkpoint.bounds import check_tokenizer
from clp_jax.checkpoint.names import local_model
from clp_jax.checkpoint.run_folder import MODEL, is_run_folder
from clp_jax.errors import UserError
from clp_jax.files import inside, read_json, write_json
from clp_jax.tokenizer import AnyTokenizer, Tokenizer, read_tokenizer

UNPADDED = "unpadded_vocab_size"
"""Key of ``config.json``: how many rows have a token; an export drops the rows after them."""

GENERATION = "generation_config.json"
MANIFEST = "transfer.json"
"""How a transfer was made, and from what."""
ORIGINS = "transfer_origins.npz"
"""Where the rows of the new token embedding come from: the ids by origin."""
RESULTS = "results.json"
"""What was measured about the model."""
DESCRIPTIONS = (GENERATION, MANIFEST, ORIGINS, RESULTS, "README.md")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
)
PROGRAMS = ("auto_map", "custom_pipelines")
"""Keys that name programs to run. None is run here, and none is passed on to a new model."""


def resolve(name: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a model: the named one if it exists, else a snapshot from the hub or its cache.

    ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` work as usual. Safetensors are preferred
    to ``pytorch_model.bin``; without ``weights`` only the small files are fetched.

    Raises:
        UserError: there is neither such a folder nor such a model, a folder is given a revision, or
            a file in it is not a regular file or leads out of it.
    """
    if folder := local_model(name):
        _refuse_revision(name, revision)
        check_files(folder)
        return folder
    small = ["*.json", "*.txt", "*.model", "*.jinja"]
    snapshot = _download(
        str(name), revision, [*small, *(["model*.safetensors"] if weights else [])]
    )
    if weights and not any(snapshot.glob("model*.safetensors")):
        snapshot = _download(str(name), revision, [*small, "pytorch_model*.bin"])
    return snapshot


def model_files(name: str | Path, revision: str | None = None) -> Path:
    """The folder with the configuration and the tokenizer of a model, run folder or hub id."""
    if is_run_folder(name):
        _refuse_revision(name, revision)
        check_files(Path(name) / MODEL)
        return Path(name) / MODEL
    return resolve(name, revision, weights=False)


def _refuse_revision(folder: str | Path, revision: str | None) -> None:
    """Refuse the revision of a folder.

    Raises:
        UserError: it is given.
    """
    if revision is not None:
        raise UserError(
            f"{folder} is a folder here and has no revision {revision!r}: leave the revision out, "
            "or name a model on the hub."
        )


def check_files(folder: Path) -> None:
    """Make sure that the files to read from a model's folder are regular files inside it.

    Raises:
        UserError: one is a pipe, a device, or a link that leads nowhere or out of the folder.
    """
    weights = ("model*.safetensors*", "pytorch_model*.bin*")
    for pattern in ("config.json", *DESCRIPTIONS, *TOKENIZER_FILES, *weights):
        for file in folder.glob(pattern):
            inside(folder, file.name)


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns)
        )
    except GatedRepoError:
        raise UserError(
            f"{name} is gated: accept its terms on its hub page and set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{name} has no revision {revision!r} on the hub.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{name} is neither a folder here nor a model on the hub (private ones need HF_TOKEN)."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError):
        raise UserError(
            f"{name} is not a folder here, and the hub cannot be reached: "
            "check the path or the network."
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of a folder's ``config.json``, without the programs that it names.

    Raises:
        UserError: the file is missing or damaged, or claims more rows with tokens than there are
            rows.
    """
    config = without_programs(read_json(folder / "config.json"))
    real, rows = config.get(UNPADDED), config.get("vocab_size")
    if real is not None and not (type(real) is int and type(rows) is int and 1 <= real <= rows):
        raise UserError(
            f"{folder / 'config.json'}: {UNPADDED} is {real!r}, but must be from 1 to vocab_size."
        )
    return config


def read_generation(folder: Path) -> dict[str, Any]:
    """The contents of a folder's ``generation_config.json``; empty if there is none.

    Raises:
        UserError: the file is damaged, or a key that names token ids has other values.
    """
    file = folder / GENERATION
    settings = without_programs(read_json(file)) if file.exists() else {}
    never = settings.get("suppress_tokens") or []
    for key, ids in (("eos_token_id", end_ids(settings)), ("suppress_tokens", never)):
        if not (isinstance(ids, list) and all(type(id) is int for id in ids)):
            raise UserError(f"{file}: {key} is {settings[key]!r}, but must name token ids.")
    return settings


def end_ids(settings: Mapping[str, Any]) -> list[Any]:
    """The ids that end a text: ``generation_config.json`` names one, several or none."""
    end = settings.get("eos_token_id")
    return end if isinstance(end, list) else [] if end is None else [end]


def without_programs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model or tokenizer without the programs that they name."""
    return {key: value for key, value in settings.items() if key not in PROGRAMS}


def load_tokenizer(name: str | Path, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a folder or hub id.

    Raises:
        UserError: there is none, or it cannot be loaded.
    """
    folder = model_files(name, revision)
    if not any(
        (folder / file).exists() for file in TOKENIZER_FILES if file != "tokenizer_config.json"
    ):
        raise UserError(f"{name} has no tokenizer: tokenizer.json is missing.")
    check_tokenizer(folder)
    return read_tokenizer(folder, str(name))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files between folders, byte for byte except for `PROGRAMS`."""
    _copy(source, target, TOKENIZER_FILES)


def copy_model_files(source: Path, target: Path) -> None:
    """Copy everything of a model except its weights: configuration, tokenizer, card."""
    _copy(source, target, ("config.json", *DESCRIPTIONS, *TOKENIZER_FILES))


def _copy(source: Path, target: Path, files: Iterable[str]) -> None:
    for file in files:
        if not (source / file).exists():
            continue
        settings = read_json(source / file) if file.endswith(".json") else {}
        if settings.keys().isdisjoint(PROGRAMS):
            shutil.copyfile(source / file, target / file)
        else:
            write_json(target / file, without_programs(settings))


def tokenizer_hash(tokenizer: AnyTokenizer) -> str:
    """SHA-256 of everything that decides which ids a document gets.

    Truncation, padding and decoder do not count: they do not change the ids of a corpus.
    """
    tokenizer = Tokenizer.of(tokenizer)
    state = tokenizer.state
    parts = [state[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
    described = json.dumps([tokenizer.eos, *tokenizer.opening, *parts], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()
