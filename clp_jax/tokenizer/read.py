"""Reading the tokenizer of a folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from clp_jax.errors import UserError
from clp_jax.files import read_json
from clp_jax.tokenizer.owner import ROLES, Tokenizer


def read_tokenizer(folder: Path, name: str) -> Tokenizer:
    """Read the tokenizer of a folder, with its ``tokenizer.json`` unchanged.

    Encoding does not use the classes of transformers, since some replace the normaliser and the
    pre-tokenizer of the file. They supply only the special tokens if ``tokenizer_config.json`` does
    not name the end-of-text token, and the whole tokenizer if there are only older files, such as
    ``vocab.json`` and ``merges.txt``.

    Args:
        folder: The folder with the files.
        name: Its name in errors.

    Raises:
        UserError: the tokenizer cannot be read.
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
    tokenizer = Tokenizer.from_backend(name, backend, roles, limit)
    return replace(tokenizer, chat_template=_chat_template(folder, settings))


def _settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``, with the older ``special_tokens_map.json`` as defaults."""
    settings: dict[str, Any] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        settings |= read_json(file) if file.exists() else {}
    return settings


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The template of a file of its own, or that of the settings; of several, the default one."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8", errors="replace")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry for entry in template if isinstance(entry, dict)}
        template = named.get("default", {}).get("template")
    return template if isinstance(template, str) else None


def _spelling(token: Any) -> str | None:
    """The spelling of a token in a configuration: a string, or an object with its content."""
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
        raise UserError(
            f"The tokenizer in {name} has no fast version: convert it to tokenizer.json."
        )
    return tokenizer


def _unreadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"The tokenizer in {name} cannot be loaded ({type(error).__name__}: {reason})."
    )
