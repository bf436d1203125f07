"""The written records of a transfer: manifest, one-screen summary, model card, trace."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from clp_jax.checkpoint.card import CITATION, USE, flat, inherited, read_metadata, render_card
from clp_jax.checkpoint.hub import tokenizer_hash
from clp_jax.files import public_name
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.helper import Helper
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.models import Checkpoint
from clp_jax.transfer.reading import Reading
from clp_jax.transfer.selection import BY_OVERLAP, Choice
from clp_jax.transfer.table import NewTable
from clp_jax.transfer.text import DrawnText
from clp_jax.vocabulary import Token, read_vocabulary

PACKAGES = ("clp-jax", "jax", "numpy", "tokenizers", "transformers")
MEANINGS = {
    "copied": "copied from the source: the same token",
    "mixed": "the same token: a mix of the source's row and the method's",
    "role": "copied from the source's special token with the same role",
    "combined": "computed by the method",
    "padding": "without a token",
}


def describe_transfer(
    choice: Choice,
    tables: Mapping[str, NewTable],
    drawn: DrawnText,
    readings: Mapping[str, Reading],
    source: str,
    helpers: Sequence[str],
    config: TransferConfig,
) -> dict[str, Any]:
    """The manifest ``transfer.json``.

    Args:
        choice: the source, the helper and the recipe.
        tables: the new tables by tensor name.
        drawn: the text.
        readings: what the text costs the ``source`` and the ``new`` model; empty without text.
        source: the source as the user wrote it.
        helpers: all helpers to choose from.
        config: the configuration of the transfer.
    """
    pair = choice.pair
    target, spelling = pair.helper.target, pair.helper.spelling
    return {
        "arguments": {"source": source, "helper": pair.helper.name, **config.given},
        "command": command_line(source, helpers, config),
        "seed": config.seed,
        **choice.to_dict(),
        **({"text": drawn.to_dict()} if drawn.documents else {}),
        **({"readings": {k: r.to_dict() for k, r in readings.items()}} if readings else {}),
        "vocabulary": pair.vocabulary.to_dict(),
        **({} if spelling is None else {"spelling": dict(spelling.counts)}),
        "tables": {
            name: {"helper_table": pair.helper_tables[name]}
            | table.to_dict(pair.inputs[name].source.norms)
            for name, table in tables.items()
        },
        "sha256": {
            "source_tokenizer": tokenizer_hash(pair.source.tokenizer),
            "source_tables": {name: table.source.sha256 for name, table in pair.inputs.items()},
            "helper_tokenizer": tokenizer_hash(pair.helper.tokenizer),
            **({} if spelling is None else {"target_tokenizer": tokenizer_hash(target)}),
            "helper_tables": {
                pair.helper_tables[name]: table.helper.sha256 for name, table in pair.inputs.items()
            },
            **({"text": text_hash(pair.text)} if pair.text else {}),
        },
        "versions": {package: version(package) for package in PACKAGES},
    }


def text_hash(documents: Sequence[str]) -> str:
    """SHA-256 of the documents used, with a zero byte after each."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode() + b"\0")
    return digest.hexdigest()


def command_line(source: str, helpers: Sequence[str], config: TransferConfig) -> str:
    """The command line that repeats the transfer."""
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
    """A method and its options in words."""
    words = [f"{recipe['method']} ({METHODS[recipe['method']].text})"]
    if recipe["source_weight"] < 1:
        words.append(f"{recipe['source_weight']:.0%} of every shared row copied")
    if recipe.get("by_reliability"):
        words.append("less of a shared row copied, the worse others predict it")
    if recipe["match_spread"]:
        by_direction = recipe.get("spread_shrinkage") is not None
        words.append("spread matched by direction" if by_direction else "spread matched")
    if recipe["calibrate"]:
        words.append("calibrated on text")
    if recipe["no_fallback"]:
        words.append("without a fallback")
    return ", ".join(words)


def describe_embeddings(manifest: Mapping[str, Any]) -> str:
    """The section of a model card on where the embeddings come from.

    Args:
        manifest: Contents of the model's ``transfer.json``.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is not a manifest of a transfer.
    """
    arguments, (first, *_) = manifest["arguments"], manifest["tables"].values()
    rows = first["rows"]
    source, helper = (public_name(arguments[model]) for model in ("source", "helper"))
    tokenizer = arguments.get("tokenizer")
    owner = "the helper" if tokenizer is None else f"`{public_name(tokenizer)}`"
    words = "the vocabularies of the source and" if arguments.get("extend") else "the vocabulary of"
    table = "\n".join(
        f"| {MEANINGS.get(origin, origin)} | {count:,} |"
        for origin, count in rows.items()
        if count and origin != "total"
    )
    return f"""\
## Embeddings

This model has the body of `{source}` and a new embedding table for {words} {owner}.
The table was computed with `{helper}` as the helper, by CLP-Transfer
([Ostendorff & Rehm 2023](https://arxiv.org/abs/2301.09626)) or a related method.

Method: {describe_recipe(manifest["recipe"])}.

| rows of the new table | |
|---|---:|
{table}
| all | {rows["total"]:,} |

`transfer.json` has the details: the ranking of methods, norms, hashes of the inputs, versions.
{_tokenizers_in_markdown(manifest)}"""


def model_card(manifest: Mapping[str, Any], source: Checkpoint, helper: Helper) -> str:
    """The ``README.md`` of a transferred model that has not been trained since.

    Args:
        manifest: Contents of its ``transfer.json``.
        source: The model that supplies the body and the licence.
        helper: The model that supplies the rows, with the tokenizer that supplies the language.
    """
    extended = manifest["arguments"].get("extend")
    known, of_helper = inherited(source.name, source.folder), read_metadata(helper.target_folder)
    spoken = (
        [known.get("language"), of_helper.get("language")]
        if extended
        else [of_helper.get("language")]
    )
    metadata = known | {
        "language": flat(spoken),
        "tags": [*flat([known.get("tags")]), "clp-transfer"],
    }
    names = [Path(public_name(name)).name for name in (source.name, helper.target_name)]
    kept = "its own vocabulary and that" if extended else "the vocabulary"
    body = f"""\
A language model that was transferred to another language. It has not been trained on the target
language yet, so its text is poor: continue pretraining before using it.

{describe_embeddings(manifest)}
{USE}
## Limits

The licences and known limits of both original models apply.

{CITATION}"""
    return render_card(f"{names[0]} with {kept} of {names[1]}", metadata, body)


RANKED = 3
"""Number of methods of a ranking to show, each with its best options."""

READERS = {"source": "the source with its own tokenizer", "new": "the new model"}
SHORT = {"source": "source's own", "new": "new"}

WIDTH = 100
INDENT = " " * 12


def summarize(manifest: Mapping[str, Any], out: str) -> str:
    """The printed summary of a transfer: the match, the choice and the rows.

    Args:
        manifest: the result of `clp_jax.transfer_model`.
        out: the output folder.
    """
    arguments, vocabulary = manifest["arguments"], manifest["vocabulary"]
    lines = [
        f"{arguments['source']} + {arguments['helper']} -> {out}",
        f"vocabulary  {vocabulary['shared']:,} of {vocabulary['target_tokens']:,} target tokens "
        f"are known to the source ({vocabulary['share_of_target']:.1%})",
        *_spelling(manifest),
        *_ranking(manifest),
        *_tokenizers(manifest),
        *wrap(
            f"method      {describe_recipe(manifest['recipe'])}", WIDTH, subsequent_indent=INDENT
        ),
    ]
    for name, table in manifest["tables"].items():
        lines += _rows(name, table)
    return "\n".join(lines)


def _spelling(manifest: Mapping[str, Any]) -> list[str]:
    counts = manifest.get("spelling")
    if counts is None:
        return []
    return [
        f"spelling    of {sum(counts.values()):,} target tokens, {counts['one token']:,} are one "
        f"token of the helper, {counts['several']:,} are several,",
        f"{INDENT}{counts['normalised']:,} only after its normalisation, {counts['none']:,} none",
    ]


def _ranking(manifest: Mapping[str, Any]) -> list[str]:
    best: dict[tuple[str, str], Any] = {}
    for score in manifest["ranking"]:
        best.setdefault((score["helper"], score["method"]), score)
    ranking = [*best.values()]
    if not ranking:
        return []
    several = len({score["helper"] for score in ranking}) > 1
    lines = [f"ranking     by {manifest['ranked_by']}{_drawn(manifest)}, lower is better"]
    for score in ranking[:RANKED]:
        helper = f"  {score['helper']}" if several else ""
        norms = "  spread matched" if score["match_spread"] else ""
        if "start" in score:
            norms += f"  from {score['start']:.4f} in {score['steps']:,} steps"
        lines.append(
            f"{INDENT}{score['score']:8.4f}  {score['method']:<11} "
            f"copy {score['source_weight']:g}{norms}{helper}"
        )
    if manifest["ranked_by"] == BY_OVERLAP and ranking[0]["score"] >= 1:
        lines.append(
            f"{INDENT}No method beats the mean row: check that the helper is a trained model."
        )
    if manifest["ranked_by"] == BY_OVERLAP:
        lines += _caution(ranking)
    clp = next((i for i, score in enumerate(ranking) if score["method"] == "clp"), 0)
    if clp >= RANKED:
        lines.append(f"{INDENT}{ranking[clp]['score']:8.4f}  clp, rank {clp + 1}")
    return lines


def verdict(manifest: Mapping[str, Any]) -> str:
    """What the new tokenizer changes, in words; empty if there is nothing to compare."""
    found = manifest.get("readings", {})
    if "source" not in found:
        return ""
    old, new = found["source"], found["new"]
    cost = new["flops_per_byte"] / old["flops_per_byte"] - 1
    words = (
        f"Per byte, the new tokenizer takes {abs(cost):.0%} {'less' if cost < 0 else 'more'} "
        "compute than the source's own."
    )
    if old["bits_per_byte"] is not None:
        more = new["bits_per_byte"] - old["bits_per_byte"]
        words += (
            f" Before training, the new model needs {abs(more):.2f} bits per byte "
            f"{'less' if more < 0 else 'more'}."
        )
    return f"{words} {_unknown(old)}".rstrip()


def _unknown(reading: Mapping[str, Any]) -> str:
    if not reading["unknown"]:
        return ""
    return (
        f"The source's tokenizer cannot encode {reading['unknown']:.1%} of the bytes, so the "
        "source's figures are too good."
    )


def _tokenizers(manifest: Mapping[str, Any]) -> list[str]:
    """What the text costs the source with its own tokenizer, and the new model."""
    lines: list[str] = []
    for reader, figures in manifest.get("readings", {}).items():
        bits, start = figures["bits_per_byte"], f"{'' if lines else 'tokenizer':<12}"
        lines.append(
            f"{start}{SHORT[reader]:<13}"
            + ("" if bits is None else f"{bits:7.4f} bits  ")
            + f"{figures['tokens_per_byte']:.3f} tokens  "
            f"{figures['flops_per_byte'] / 1e6:8,.1f} MFLOP per byte, "
            f"{figures['tokens_per_word']:.2f} tokens per word"
        )
        lines += wrap(
            _unknown(figures).strip(), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
        )
    return lines


def _tokenizers_in_markdown(manifest: Mapping[str, Any]) -> str:
    rows: list[str] = []
    for reader, figures in manifest.get("readings", {}).items():
        bits = figures["bits_per_byte"]
        rows.append(
            f"| {READERS[reader]} | {'' if bits is None else format(bits, '.4f')} "
            f"| {figures['tokens_per_byte']:.3f} | {figures['tokens_per_word']:.2f} "
            f"| {figures['flops_per_byte'] / 1e6:,.1f} |"
        )
    if not rows:
        return ""
    table = "\n".join(rows)
    return f"""
## The tokenizer

What the same text costs before any training. {verdict(manifest)}

| | bits per byte | tokens per byte | tokens per word | MFLOP per byte |
|---|---:|---:|---:|---:|
{table}
"""


def _caution(ranking: Sequence[Mapping[str, Any]]) -> list[str]:
    """How sure a ranking without text is."""
    behind = ranking[1]["behind"] if len(ranking) > 1 else None
    words = "" if behind is None else f"The second is {behind:.1f} standard errors behind. "
    words += "Without text this is a guess: give --data."
    return wrap(words, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)


def _drawn(manifest: Mapping[str, Any]) -> str:
    """How many documents were drawn from how many, and whether that was all there is."""
    if "text" not in manifest:
        return ""
    text = manifest["text"]
    beginning = " at the beginning" if text["cut"] else ""
    return f" ({text['documents']:,} of {text['of']:,} documents{beginning})"


def _rows(name: str, table: Mapping[str, Any]) -> list[str]:
    quantiles = table["norm_quantiles"]
    norms = {origin: values.get("0.5") for origin, values in quantiles.items()}
    lines = wrap(
        f"{name}: {table['rows']['total']:,} rows, helper's {table['helper_table']}, "
        f"source's norm {norms['source']:.3g}",
        WIDTH,
        subsequent_indent="  ",
    )
    for origin, count in table["rows"].items():
        if count and origin != "total":
            meaning = MEANINGS.get(origin, origin)
            lines.append(f"  {count:>9,}  norm {norms[origin]:>7.3g}  {meaning}")
    return lines


CONTRIBUTORS = 5


def write_trace(file: Path, choice: Choice, tables: Mapping[str, NewTable]) -> None:
    """Write one JSON line per row of every table: id, token, text, origin, main contributors.

    ``token`` is the tokenizer's spelling, ``text`` what it stands for. Contributors are source
    tokens by their text, with their weights. For a copied row it is the token it is copied from,
    for a mixed row the same with its share. For a computed row they are the tokens with the
    largest weights in the method, before the spread is matched and rows are calibrated. Padding and
    rows that fell back to the mean row list none.
    """
    pair, layout = choice.pair, choice.pair.layout
    source = pair.vocabularies[0].tokens
    target = read_vocabulary(pair.tokenizer).tokens
    missing = layout.missing.tolist()
    copied = dict(zip(layout.copied.tolist(), layout.copied_source.tolist(), strict=True))
    with file.open("w", encoding="utf-8") as lines:
        for name, table in tables.items():
            origins = {id: origin for origin, ids in table.origins.items() for id in ids.tolist()}
            mixed = table.origins["mixed"]
            weights = table.facts.get("source_weight", choice.recipe.source_weight)
            weight_of = dict(
                zip(mixed.tolist(), np.broadcast_to(weights, mixed.shape), strict=True)
            )
            made_of = {id: [(other, float(weight_of.get(id, 1.0)))] for id, other in copied.items()}
            if table.contributors is not None:
                ids, weights = table.contributors(CONTRIBUTORS)
                for token, row, shares in zip(missing, ids.tolist(), weights.tolist(), strict=True):
                    if origins[token] != "fallback: mean":
                        made_of[token] = list(zip(row, shares, strict=True))
            for id in range(layout.rows):
                line = {
                    "table": name,
                    "id": id,
                    "token": pair.tokenizer.token(id),
                    "text": _text(target.get(id)),
                    "origin": origins[id],
                    "from": [
                        [_text(source.get(other)), round(weight, 6)]
                        for other, weight in made_of.get(id, [])
                        if weight
                    ],
                }
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _text(token: Token | None) -> str | None:
    """The text of a token; bytes that are not UTF-8 as Python escapes them."""
    return None if token is None else token.bytes.decode(errors="backslashreplace")
