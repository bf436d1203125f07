"""What a transfer leaves in writing: the manifest, its summary on one screen, the model card."""

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clp_jax.checkpoint.card import CITATION, USE, flat, inherited, read_metadata, render_card
from clp_jax.checkpoint.hub import tokenizer_hash
from clp_jax.files import public_name
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.inputs import Checkpoint
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.ranking import Choice
from clp_jax.transfer.table import NewTable

PACKAGES = ("clp-jax", "jax", "numpy", "tokenizers", "transformers")
MEANINGS = {
    "copied": "copied from the source: the same token",
    "mixed": "the same token: a share is the source's row, the rest the method's",
    "role": "copied from the source's special token of the same role",
    "combined": "computed by the method",
    "padding": "for no token",
}


def describe_transfer(
    choice: Choice,
    tables: Mapping[str, NewTable],
    source: str,
    helpers: Sequence[str],
    config: TransferConfig,
) -> dict[str, Any]:
    """The manifest ``transfer.json``.

    Args:
        choice: the source, the helper and the recipe.
        tables: the new tables by tensor name.
        source: the source as the user wrote it.
        helpers: all helpers that there were to choose from.
        config: what the transfer was asked for.
    """
    setting = choice.setting
    return {
        "arguments": {"source": source, "helper": setting.helper.name, **config.given},
        "command": command_line(source, helpers, config),
        "seed": config.seed,
        **choice.to_dict(),
        "vocabulary": setting.vocabulary.to_dict(),
        "tables": {
            name: {"helper_table": setting.helper_tables[name]}
            | table.to_dict(setting.inputs[name].source.norms)
            for name, table in tables.items()
        },
        "sha256": {
            "source_tokenizer": tokenizer_hash(setting.source.tokenizer),
            "source_tables": {name: table.source.sha256 for name, table in setting.inputs.items()},
            "helper_tokenizer": tokenizer_hash(setting.helper.tokenizer),
            "helper_tables": {
                setting.helper_tables[name]: table.helper.sha256
                for name, table in setting.inputs.items()
            },
            **({"text": text_hash(setting.text)} if setting.text else {}),
        },
        "versions": {package: version(package) for package in PACKAGES},
    }


def text_hash(documents: Sequence[str]) -> str:
    """SHA-256 of the documents that were used, a zero byte behind each."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode() + b"\0")
    return digest.hexdigest()


def command_line(source: str, helpers: Sequence[str], config: TransferConfig) -> str:
    """What to type for the same transfer."""
    words = ["clp-jax", "transfer", "--source", source, "--helper", *helpers]
    for key, value in config.given.items():
        flag = key.replace("_", "-")
        match value:
            case True:
                words.append(f"--{flag}")
            case False:
                words.append(f"--no-{flag}")
            case tuple() | list():
                words += [f"--{flag}", *value]
            case _:
                words += [f"--{flag}", str(value)]
    return shlex.join([*words, "--out"]) + " OUT"


def describe_recipe(recipe: Mapping[str, Any]) -> str:
    """A method and its dials in words."""
    words = [f"{recipe['method']} ({METHODS[recipe['method']].text})"]
    if recipe["copy_share"] < 1:
        words.append(f"{recipe['copy_share']:.0%} of every shared row copied")
    if recipe["match_norms"]:
        words.append("norms matched")
    if recipe["calibrate"]:
        words.append("calibrated on text")
    if recipe["strict"]:
        words.append("whatever its condition")
    return ", ".join(words)


def describe_embeddings(manifest: Mapping[str, Any]) -> str:
    """How a model got its embeddings, as a part of its card.

    Args:
        manifest: Contents of its ``transfer.json``.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is none of ours.
    """
    arguments, (first, *_) = manifest["arguments"], manifest["tables"].values()
    rows = first["rows"]
    source, helper = (public_name(arguments[model]) for model in ("source", "helper"))
    words = "the vocabularies of both" if arguments.get("extend") else "the helper's vocabulary"
    table = "\n".join(
        f"| {MEANINGS.get(origin, origin)} | {count:,} |"
        for origin, count in rows.items()
        if count and origin != "total"
    )
    return f"""\
## Its embeddings

The body of `{source}`, under a new embedding table for {words}, with `{helper}` as the helper:
CLP-Transfer ([Ostendorff & Rehm 2023](https://arxiv.org/abs/2301.09626)) or one of its relatives.

Method: {describe_recipe(manifest["recipe"])}.

| rows of the new table | |
|---|---:|
{table}
| all | {rows["total"]:,} |

`transfer.json` tells the rest: the choice, norms, hashes of the inputs, versions.
"""


def model_card(manifest: Mapping[str, Any], source: Checkpoint, helper: Checkpoint) -> str:
    """The ``README.md`` of a transferred model that has not been trained since.

    Args:
        manifest: Contents of its ``transfer.json``.
        source: The model with the body, whose licence the new one has.
        helper: The model with the vocabulary, whose language the new one is to speak.
    """
    extended = manifest["arguments"].get("extend")
    known, of_helper = inherited(source.name, source.folder), read_metadata(helper.folder)
    spoken = (
        [known.get("language"), of_helper.get("language")]
        if extended
        else [of_helper.get("language")]
    )
    metadata = known | {
        "language": flat(spoken),
        "tags": [*flat([known.get("tags")]), "clp-transfer"],
    }
    names = [Path(public_name(model.name)).name for model in (source, helper)]
    kept = "its own vocabulary and that" if extended else "the vocabulary"
    body = f"""\
A language model at the start of its life in another language. It has not been trained on the target
language yet, and its text is poor until it has: continue the pretraining first.

{describe_embeddings(manifest)}
{USE}
## Limits

Licences and known limits of both models it comes from apply to it.

{CITATION}"""
    return render_card(f"{names[0]} with {kept} of {names[1]}", metadata, body)
