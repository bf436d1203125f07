"""What a stranger's tokenizer may cost: its ids bound the tables, its expressions the time."""

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
"""Ids without a token that a tokenizer may have beyond one for each token."""

# A process of its own: an expression that backtracks cannot be stopped, only its process.
SECONDS = 10
_PROBE = """
import json, sys, tokenizers
for pattern in json.load(sys.stdin):
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    for character in sorted({*pattern, *"aA1 \\n!é字"}):
        for length in (50, 1_000):
            split.pre_tokenize_str(character * length + "\\0" + pattern)
"""


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer that would exhaust memory or time, before it is loaded.

    Args:
        folder: Holds ``tokenizer.json``, ``vocab.json``, both or neither.

    Raises:
        UserError: a file is no JSON object; an id is far beyond the number of tokens, so that
            tables of that many rows would be made; or a regular expression does not come to an
            end on plain text.
    """
    for file in (folder / "tokenizer.json", folder / "vocab.json"):
        if file.exists():
            description = read_json(file)
            _check_ids(file, [*_ids(description)])
            _check_patterns(file, sorted({*_patterns(description)}))


def _check_ids(file: Path, ids: Sequence[int]) -> None:
    highest = max(ids, default=0)
    if highest >= 2 * len(ids) + GAPS:
        raise UserError(
            f"{file} has {len(ids)} tokens, but one has the id {highest}: give them ids without "
            "large gaps."
        )


def _ids(description: Mapping[str, Any]) -> Iterator[int]:
    """The ids of a vocabulary that maps tokens to them, and of added tokens."""
    model, added = description.get("model"), description.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else description
    values = vocabulary.values() if isinstance(vocabulary, dict) else vocabulary
    for value in values if isinstance(values, Iterable) else ():
        yield value if isinstance(value, int) else 0
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield token["id"]


def _check_patterns(file: Path, patterns: Sequence[str]) -> None:
    if patterns and not _end(tuple(patterns)):
        raise UserError(
            f"{file} has a regular expression that does not come to an end on a run of equal "
            f"characters: {', '.join(patterns)[:300]}."
        )


@cache
def _end(patterns: tuple[str, ...]) -> bool:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            input=json.dumps(patterns),
            text=True,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return not probe.returncode


def _patterns(description: Any) -> Iterator[str]:
    if isinstance(description, dict):
        if isinstance(description.get("Regex"), str):
            yield description["Regex"]
        for key, value in description.items():
            if key != "vocab":
                yield from _patterns(value)
    elif isinstance(description, list):
        for value in description:
            yield from _patterns(value)
