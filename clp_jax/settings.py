"""Settings as text: YAML files and ``--section.key value``, in which every scalar is a string.

Each key interprets its own string: YAML's types would turn the language ``no`` into a boolean,
``12:00:00`` into a number of seconds, and a file named ``20241126`` into an integer.
"""

from collections.abc import Mapping, Sequence
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
    """Reads plain nulls as None and other scalars as strings; duplicate keys are an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.value in NULLS:
            return None
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.MarkedYAMLError(None, None, f"{key.value} appears twice", key.start_mark)
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Parse YAML to dictionaries, lists, strings and None.

    Raises:
        ValueError: it is not YAML, has a key twice or is nested too deep; the message says where.
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
    """The sections of a YAML file, local or in a bucket, without empty sections.

    Raises:
        UserError: it is missing, cannot be reached, is not YAML or does not consist of sections.
    """
    try:
        values = parse_yaml(_read(file))
    except ValueError as error:  # a UnicodeDecodeError too
        raise UserError(f"{file} is not valid YAML ({error}).") from None
    if not isinstance(values, dict | None):
        raise UserError(f"{file} must contain sections with keys, like the files in configs/.")
    return {key: value for key, value in (values or {}).items() if value is not None}


def _read(file: str | Path) -> str:
    with storage_errors(str(file)) if is_address(file) else nullcontext():
        path = epath.Path(file)
        if not path.exists():
            raise UserError(f"{file} is missing: give an existing configuration.")
        if not is_address(file) and not Path(file).is_file():
            raise UserError(f"{file} is not a file: give an existing configuration.")
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UserError(
            f"{file} has more than {MOST_BYTES:,} bytes, the limit for a configuration."
        )
    return data.decode("utf-8-sig")


def parse_flags(flags: Sequence[str]) -> dict[tuple[str, str], Any]:
    """``["--train.steps", "10", "--mesh.fsdp=2"]`` -> ``{("train", "steps"): "10", ...}``.

    Raises:
        UserError: a flag does not have this form, or its value is missing or not YAML.
    """
    parsed = {}
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        section, dot, key = name.removeprefix("--").partition(".")
        if not (flag.startswith("--") and dot and section and key):
            raise UserError(f"{flag} is not a configuration key: write --section.key value.")
        if not equals:
            if not rest:
                raise UserError(f"{flag} needs a value: write {flag} VALUE.")
            value = rest.pop(0)
        try:
            parsed[section, key] = parse_yaml(value)
        except ValueError as error:
            raise UserError(
                f"{name}: {_short(value)} is not valid YAML ({error}): put quotes around the "
                "text, inside the quotes of the shell."
            ) from None
    return parsed


def by_section(flags: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """The keys of `parse_flags` with their values, by section."""
    sections: dict[str, dict[str, Any]] = {}
    for (section, key), value in flags.items():
        sections.setdefault(section, {})[key] = value
    return sections


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
