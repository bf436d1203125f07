"""The short report of a corpus for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from clp_jax.data.report.content import left_out, percentage, rate
from clp_jax.terminal import visible

STEPS = 14
"""Maximum number of steps shown; steps without effect are never shown."""

WIDTH = 100


def summary(manifest: Mapping[str, Any]) -> str:
    """The main facts of a corpus, for the terminal.

    Args:
        manifest: The corpus's manifest.

    Returns:
        At most 24 lines of at most 100 characters.
    """
    heldout = manifest["heldout"]
    lines = [
        f"corpus      {_sizes(manifest)}",
        f"held out    {_sizes(heldout) if heldout else 'nothing'}",
        left_out(manifest),
    ]
    if fertility := manifest.get("fertility"):
        lines.append(f"tokenizer   {_fertility(manifest['tokenizer'], fertility['new'])}")
        if old := fertility.get("old"):
            lines.append(f"before      {_fertility(old['name'], old)}")
    if unknown := manifest.get("unknown_bytes"):
        lines.append(f"unknown     {unknown:,} bytes that the tokenizer cannot encode")
    return "\n".join(visible(line)[:WIDTH] for line in [*lines, *_steps(manifest["steps"])])


def _sizes(part: Mapping[str, Any]) -> str:
    units = ("documents", "bytes", "words", "tokens")
    return ", ".join(f"{part[unit]:,} {unit}" for unit in units if unit in part)


def _fertility(name: str, figures: Mapping[str, Any]) -> str:
    return (
        f"{figures['tokens_per_word']:.3f} tokens per word, "
        f"{figures['bytes_per_token']:.3f} bytes per token: {name}"
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    busy = [step for step in steps if step["dropped"] or step["changed"]]
    if not busy:
        return ["steps       none that dropped or changed anything"]
    lines = [f"{'step':<20}{'documents':>16}{'dropped':>16}{'share':>10}{'changes':>16}{'M/s':>10}"]
    for step in busy[:STEPS]:
        dropped, changed = sum(step["dropped"].values()), sum(step["changed"].values())
        lines.append(
            f"{step['name']:<20}{step['documents']:>16,}{dropped:>16,}"
            f"{percentage(dropped, step['documents']):>10}{changed:>16,}{rate(step):>10}"
        )
    if more := busy[STEPS:]:
        lines.append(f"and {len(more)} more")
    return lines
