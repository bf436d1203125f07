"""The tokenizer of a folder."""

from pathlib import Path
from typing import Any

import tokenizers

from clp_jax.errors import UserError
from clp_jax.files import read_json
from clp_jax.tokenizer.owner import ROLES, Tokenizer


def read_tokenizer(folder: Path, name: str) -> Tokenizer:
    """Read the tokenizer of a folder: its ``tokenizer.json`` as it is written.

    Classes of transformers are not asked how to encode, since some build another normaliser and
    pre-tokenizer than the file holds. They are asked for the names of special tokens where
    ``tokenizer_config.json`` does not name the end of a text, and for the whole tokenizer where
    there are only older files, such as ``vocab.json`` and ``merges.txt``.

    Args:
        folder: Where the files are.
        name: What errors call it.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.exists():
        return Tokenizer.of(_from_transformers(folder, name))
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:
        raise _unreadable(name, error) from None
    settings = _settings(folder)
    if "eos_token" in settings:
        roles = {role: _spelling(settings.get(f"{role}_token")) for role in ROLES}
    else:
        loaded = _from_transformers(folder, name)
        roles = {role: getattr(loaded, f"{role}_token") for role in ROLES}
    limit = settings.get("model_max_length")
    limit = limit if isinstance(limit, int) and 0 < limit < 10**9 else None
    return Tokenizer.from_backend(name, backend, roles, limit)


def _settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``, and below it the older ``special_tokens_map.json``."""
    settings: dict[str, Any] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        settings |= read_json(file) if file.exists() else {}
    return settings


def _spelling(token: Any) -> str | None:
    """A token as a configuration names it: as a string, or as an object with its content."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _from_transformers(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise _unreadable(name, error) from None
    if not tokenizer.is_fast:
        raise UserError(f"The tokenizer in {name} has no fast version: save it as tokenizer.json.")
    return tokenizer


def _unreadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"The tokenizer in {name} cannot be loaded ({type(error).__name__}: {reason})."
    )
