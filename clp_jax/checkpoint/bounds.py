"""Limits on what an untrusted tokenizer may cost: memory by its ids, time by its expressions."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from clp_jax.errors import UserError
from clp_jax.files import read_json

GAPS = 1 << 16
"""Unassigned ids that a tokenizer may have in addition to one per token."""

# A separate process: a backtracking expression cannot be stopped and a library that panics cannot
# be kept from printing, but a process can be ended.
SECONDS = 10
_PROBE = """
import json, sys, tokenizers
parts, patterns, strings = json.load(sys.stdin)
text = ("aA1 \\n!é字" + "".join(patterns + strings)) * 20
try:
    tokenizer = tokenizers.Tokenizer.from_str(parts)
    if tokenizer.normalizer and len(tokenizer.normalizer.normalize_str(text)) > 100 * len(text):
        sys.exit("its normalizer makes text a hundred times as long")
    tokenizer.decode(tokenizer.encode(text).ids)
except Exception:  # Reported by whoever loads it.
    pass
for pattern in patterns:
    try:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        for character in sorted({*pattern, *"aA1 \\n!é字"}):
            for length in (50, 1_000):
                split.pre_tokenize_str(character * length + "\\0" + pattern)
    except Exception:
        pass
"""
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_MODEL = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer that would exhaust memory or time, before it is loaded.

    Args:
        folder: Holds ``tokenizer.json``, ``vocab.json``, both or neither.

    Raises:
        UserError: a file is not a JSON object; an id is far beyond the number of tokens, so that
            tables would get that many rows; a regular expression does not finish on plain text; or
            the parts around the model blow up the text or crash the library.
    """
    for file in (folder / "tokenizer.json", folder / "vocab.json"):
        if file.exists():
            description = read_json(file)
            _check_ids(file, [*_ids(description)])
            _check_parts(file, description)


def _check_ids(file: Path, ids: Sequence[int]) -> None:
    highest = max(ids, default=0)
    if highest >= 2 * len(ids) + GAPS:
        raise UserError(
            f"{file} has {len(ids)} tokens, but one has the id {highest}: renumber them without "
            "large gaps."
        )


def _ids(description: Mapping[str, Any]) -> Iterator[int]:
    """The ids of a vocabulary that maps tokens to ids, and of added tokens."""
    model, added = description.get("model"), description.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else description
    values = vocabulary.values() if isinstance(vocabulary, dict) else vocabulary
    for value in values if isinstance(values, Iterable) else ():
        yield value if isinstance(value, int) else 0
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield token["id"]


def _check_parts(file: Path, description: Mapping[str, Any]) -> None:
    """Try everything but the model and the added tokens, which are large and harmless."""
    parts = {key: description.get(key) for key in _PARTS}
    if not any(parts.values()):
        return
    whole: dict[str, Any] = {"version": "1.0", "added_tokens": [], "model": _MODEL, **parts}
    patterns = [sorted({*_patterns(parts, kind)}) for kind in ("Regex", "String")]
    if failure := _failure(json.dumps([json.dumps(whole), *patterns])):
        raise UserError(f"{file} cannot be used: {failure[:300]}.")


@cache
def _failure(asked: str) -> str | None:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            input=asked,
            text=True,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _endless(asked)
    if not probe.returncode:
        return None
    reason = (probe.stderr.strip() or "no reason is given").splitlines()[-1]
    # The library stops some endless expressions itself.
    return _endless(asked) if "retry-limit" in reason else reason


def _endless(asked: str) -> str:
    patterns = ", ".join(json.loads(asked)[1])
    return f"a regular expression does not finish on repeated characters: {patterns}"


def _patterns(description: Any, kind: str) -> Iterator[str]:
    if isinstance(description, dict):
        if isinstance(description.get(kind), str):
            yield description[kind]
        description = [*description.values()]
    for value in description if isinstance(description, list) else ():
        yield from _patterns(value, kind)
