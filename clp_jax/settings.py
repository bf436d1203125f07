"""Settings as text: YAML files and ``--section.key value``, in which every scalar is a string.

What a string means is the business of its key: YAML's own types would turn the language ``no`` into
a boolean, ``12:00:00`` into a number of seconds and ``20241126`` into no name of a file.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from etils import epath

from clp_jax.errors import UserError
from clp_jax.files import is_address, storage_errors

NULLS = ("", "~", "null", "Null", "NULL", "None")
MOST_BYTES = 1 << 20


class _Loader(yaml.BaseLoader):
    """Plain nulls are None, all other scalars strings, and no key is given twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.value in NULLS:
            return None
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.MarkedYAMLError(
                    None, None, f"{key.value} is there twice", key.start_mark
                )
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """What YAML holds: dictionaries, lists, strings and None.

    Raises:
        ValueError: it is no YAML, holds a key twice or is nested too deep; says where.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"{reason}{place}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_settings(file: str | Path) -> dict[str, Any]:
    """The sections of a YAML file, a local one or one in a bucket; empty sections are left out.

    Raises:
        UserError: it is missing, cannot be reached, is no YAML or does not hold sections.
    """
    try:
        values = parse_yaml(_read(file))
    except ValueError as error:  # a UnicodeDecodeError too
        raise UserError(f"{file} is not valid YAML ({error}).") from None
    if not isinstance(values, dict | None):
        raise UserError(f"{file} must hold sections with keys, as the files in configs/ do.")
    return {key: value for key, value in (values or {}).items() if value is not None}


def _read(file: str | Path) -> str:
    with storage_errors(str(file)) if is_address(file) else nullcontext():
        path = epath.Path(file)
        if not path.exists():
            raise UserError(f"{file} is missing: name an existing configuration.")
        if not is_address(file) and not Path(file).is_file():
            raise UserError(f"{file} is not a file: name an existing configuration.")
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UserError(f"{file} has more than {MOST_BYTES:,} bytes: name a configuration.")
    return data.decode("utf-8-sig")


def parse_flags(flags: Sequence[str]) -> dict[tuple[str, str], Any]:
    """``["--train.steps", "10", "--mesh.fsdp=2"]`` -> ``{("train", "steps"): "10", ...}``.

    Raises:
        UserError: one is not of this form, has no value or one that is no YAML.
    """
    parsed = {}
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        section, dot, key = name.removeprefix("--").partition(".")
        if not (flag.startswith("--") and dot and section and key):
            raise UserError(f"{flag} is not understood: write --section.key value.")
        if not equals:
            if not rest:
                raise UserError(f"{flag} needs a value: write {flag} VALUE.")
            value = rest.pop(0)
        try:
            parsed[section, key] = parse_yaml(value)
        except ValueError as error:
            raise UserError(
                f"{name}: {_short(value)} is not valid YAML ({error}): put text with such "
                "characters into quotes of its own."
            ) from None
    return parsed


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
