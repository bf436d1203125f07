"""The generated pages of the site: every flag of the command line, every key of a configuration.

python scripts/reference.py    # writes docs/reference/command-line.md and configuration.md
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clp_jax.chain_config import ChainConfig
from clp_jax.cli import make_parser
from clp_jax.config import RunConfig
from clp_jax.data.config import PrepareConfig
from clp_jax.transfer.config import TransferConfig

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
CONFIGURATIONS = {
    "train": (RunConfig, "`clp-jax train --config FILE` and `clp-jax plan --config FILE`"),
    "prepare": (PrepareConfig, "`clp-jax prepare --config FILE`"),
    "transfer": (TransferConfig, "The flags of `clp-jax transfer`, and `transfer:` of a chain"),
    "chain": (ChainConfig, "`clp-jax chain --config FILE`"),
}
COMMAND_LINE = """\
# Command line

Every stage and every flag of this version. `clp-jax STAGE --help` prints the same:

```sh
clp-jax transfer --help
```

`MODEL` is a Hugging Face folder, a hub id or the folder of a training run. `train`, `plan` and
`prepare` also take every key of their [configuration](configuration.md) as a flag,
`--section.key value`.
"""
CONFIGURATION = """\
# Configuration

Every section and key of the YAML files, with its type, default and meaning. Each key of `train`,
`plan` and `prepare` is also a flag, which overrides the file:

```sh
clp-jax train --config configs/helper.yaml --train.steps 100
```

Unknown keys, keys that appear twice and values of the wrong type are errors that name the key. A
value is text until its key reads it, so `no` and `12:00:00` need no quotes.
"""


def pages() -> dict[str, str]:
    """The generated pages, by their file names."""
    return {"command-line.md": command_line(), "configuration.md": configuration()}


def command_line() -> str:
    """A section for each stage, with a table of its arguments."""
    return "\n".join([COMMAND_LINE, *(_stage(parser) for parser in stages(make_parser()))])


def stages(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that run something, in the order of the help text."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        for child in action.choices.values():
            yield from stages(child)


def configuration() -> str:
    """A table of keys for each file and for each section; sections that files share stand once."""
    described: dict[str, str] = {}
    lines = [CONFIGURATION]
    for name, (config, where) in CONFIGURATIONS.items():
        schema = config.model_json_schema()
        described[config.__name__] = name
        lines += [f"## {name}\n", f"{where}.\n"]
        lines += _tables(schema, schema.get("$defs", {}), name, described)
    return "\n".join(lines)


def _stage(parser: argparse.ArgumentParser) -> str:
    rows = [
        f"| `{_names(action)}` | {_metavar(action)} | {_default(action)} | {_cell(_help(action))} |"
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    table = "\n".join(["| flag | value | default | meaning |", "|---|---|---|---|", *rows])
    return f"## {parser.prog}\n\n{parser.description}\n\n{table}\n"


def _names(action: argparse.Action) -> str:
    return ", ".join(action.option_strings) or str(action.metavar or action.dest)


def _metavar(action: argparse.Action) -> str:
    if action.nargs == 0 or not action.option_strings:
        return ""
    if action.choices:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    more = " ..." if action.nargs in ("+", "*") else ""
    return f"{action.metavar or action.dest.upper()}{more}"


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.default in (None, False, argparse.SUPPRESS) or action.default == []:
        return ""
    if isinstance(action.default, list | tuple):
        return f"`{','.join(map(str, action.default))}`"
    return f"`{action.default}`"


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace(" (default: %(default)s)", "")
    return text.replace("%%", "%")


def _tables(
    schema: Mapping[str, Any], sections: Mapping[str, Any], title: str, described: dict[str, str]
) -> Iterator[str]:
    """The table of a schema's keys, then those of the sections that it names first.

    Args:
        schema: Of a file or a section.
        sections: The schemas of all sections by name.
        title: Of the part of the page that the table stands in.
        described: The titles of sections that stand on the page, by name; new ones are added.
    """
    inner = {key: _section(field) for key, field in schema["properties"].items()}
    new = {name: f"{title}: {key}" for key, name in inner.items() if name and name not in described}
    described |= new
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, field in schema["properties"].items():
        default = "required" if key in schema.get("required", ()) else _plain(field.get("default"))
        kind, name = _type(field), inner[key]
        if name:
            default = default if default == "required" else ""
            kind = f"[keys](#{described[name].replace(': ', '-')})"
            kind = f"list of {kind}" if "items" in field else kind
        text = field.get("description") or (sections[name]["description"] if name else "")
        yield f"| `{key}` | {kind} | {default} | {_cell(text)} |"
    for name, title_of_it in new.items():
        yield f"\n### {title_of_it}\n\n{sections[name]['description']}\n"
        yield from _tables(sections[name], sections, title_of_it, described)
    yield ""


def _section(field: Mapping[str, Any]) -> str | None:
    """The name of the section that a key holds, or a list of which it holds."""
    for one in (field, field.get("items", {}), *field.get("anyOf", ())):
        if "$ref" in one:
            return str(one["$ref"].rpartition("/")[2])
    return None


def _plain(default: Any) -> str:
    if default is None:
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _type(field: Mapping[str, Any]) -> str:
    """The type of a value with its limits, in words."""
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    names = {"string": "text", "boolean": "true or false", "object": "mapping"}
    kind = field.get("type", "")
    words = [names.get(kind, kind)]
    for key, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        if key in field and abs(field[key]) < 2**31 - 1 and field[key] < 1e6:
            words.append(f"{sign} {field[key]:,}")
    return ", ".join(words)


def _cell(text: str) -> str:
    """Text as Markdown, in which only what stands between backticks is code."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([\[\]<>*_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text, "utf-8")
