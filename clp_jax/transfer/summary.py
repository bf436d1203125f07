"""A transfer on one screen."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from clp_jax.transfer.manifest import MEANINGS, describe_recipe
from clp_jax.transfer.ranking import BY_OVERLAP

RANKED = 5
"""Methods of a ranking that are shown, each with its best dials."""

WIDTH = 100
INDENT = " " * 12


def summarize(manifest: Mapping[str, Any], out: str) -> str:
    """What a person wants to know of a transfer: the match, the choice, the rows, what comes next.

    Args:
        manifest: as `clp_jax.transfer_model` returns it.
        out: the folder that was written.
    """
    arguments, vocabulary = manifest["arguments"], manifest["vocabulary"]
    lines = [
        f"{arguments['source']} + {arguments['helper']} -> {out}",
        f"vocabulary  {vocabulary['shared']:,} of {vocabulary['target_tokens']:,} target tokens "
        f"are known to the source ({vocabulary['share_of_target']:.1%})",
        *_ranking(manifest),
        *wrap(
            f"method      {describe_recipe(manifest['recipe'])}", WIDTH, subsequent_indent=INDENT
        ),
    ]
    for name, table in manifest["tables"].items():
        lines += _rows(name, table)
    return "\n".join(lines)


def _ranking(manifest: Mapping[str, Any]) -> list[str]:
    best: dict[tuple[str, str], Any] = {}
    for score in manifest["ranking"]:
        best.setdefault((score["helper"], score["method"]), score)
    ranking = [*best.values()]
    if not ranking:
        return []
    several = len({score["helper"] for score in ranking}) > 1
    lines = [f"ranking     by {manifest['ranked_by']}, lower is better"]
    for score in ranking[:RANKED]:
        helper = f"  {score['helper']}" if several else ""
        norms = "  norms matched" if score["match_norms"] else ""
        lines.append(
            f"{INDENT}{score['score']:8.4f}  {score['method']:<11} "
            f"copy {score['copy_share']:g}{norms}{helper}"
        )
    if manifest["ranked_by"] == BY_OVERLAP and ranking[0]["score"] >= 1:
        lines.append(
            f"{INDENT}None predicts them better than the mean row: was the helper trained?"
        )
    clp = next((i for i, score in enumerate(ranking) if score["method"] == "clp"), 0)
    if clp >= RANKED:
        lines.append(f"{INDENT}{ranking[clp]['score']:8.4f}  clp, number {clp + 1}")
    return lines


def _rows(name: str, table: Mapping[str, Any]) -> list[str]:
    quantiles = table["norm_quantiles"]
    norms = {origin: values.get("0.5") for origin, values in quantiles.items()}
    lines = [
        f"{name}: {table['rows']['total']:,} rows, "
        f"the source's median norm is {norms['source']:.3g}"
    ]
    for origin, count in table["rows"].items():
        if count and origin != "total":
            meaning = MEANINGS.get(origin, origin)
            lines.append(f"  {count:>9,}  norm {norms[origin]:>7.3g}  {meaning}")
    return lines
