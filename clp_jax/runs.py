"""Runs side by side: the progress, the results and the speed of each."""

import datetime
import math
import os
import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etils import epath

from clp_jax.arguments import checked
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.evaluate.plots import plot_bits_per_byte, plot_perplexity
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import is_address, public_name, storage_errors
from clp_jax.limits import PathOrName
from clp_jax.train.metrics import (
    METRICS,
    Curve,
    bits_per_byte,
    read_metrics,
    validation_curve,
    validation_metric,
    validation_sets,
)
from clp_jax.train.model_card import NORMALISATIONS
from clp_jax.train.run_folder import CONFIG, RECORD, read_record

MOST_FOLDERS = 20_000
AGES = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class RunReport:
    """A summary of a run; a field that is not known, or not known yet, is None.

    Attributes:
        run: its folder, by the path where it was found.
        model: the model whose weights it started from, or whose shape it has.
        init: where the weights came from, ``pretrained`` or ``random``.
        parameters: of the model.
        tokenizer: hash of the tokenizer.
        step: the last reported step.
        steps: steps of the whole run.
        tokens: positions trained on so far.
        loss: last reported training loss, in nats per token.
        token_perplexity: of the last validation on the first held-out set, per token.
        word_perplexity: the same per word.
        byte_perplexity: the same per UTF-8 byte.
        bits_per_byte: of the last validation, by the name of the held-out set (``""``: no name).
        best_step: the step with the lowest loss on the first held-out set.
        tokens_per_second: median of the reported values.
        tokens_per_second_per_chip: median of the reported values.
        mfu: median of the reported model FLOPs utilisation.
        goodput: share of the time spent on training.
        seconds: of all its sessions.
        skipped_steps: number of steps that changed nothing.
        written: time of its last report (UTC, ISO 8601).
    """

    run: str
    model: str
    init: str
    parameters: int
    tokenizer: str
    step: int
    steps: int
    tokens: int
    loss: float | None
    token_perplexity: float | None
    word_perplexity: float | None
    byte_perplexity: float | None
    bits_per_byte: Mapping[str, float]
    best_step: int | None
    tokens_per_second: float | None
    tokens_per_second_per_chip: float | None
    mfu: float | None
    goodput: float | None
    seconds: float
    skipped_steps: int
    written: str | None


@dataclass(frozen=True)
class RunList:
    """Runs and their curves; ``str`` is a table.

    Attributes:
        runs: one report per run, in the order of their folders.
        curves: tokens trained on and perplexity of the first held-out set, by run and unit
            (``token``, ``word``, ``byte``).
        bits_per_byte: tokens trained on and bits per byte, by run and held-out set.
        unreadable: for each folder that looks like a run and cannot be read, the reason.
    """

    runs: Sequence[RunReport]
    curves: Mapping[str, Mapping[str, Curve]]
    bits_per_byte: Mapping[str, Mapping[str, Curve]]
    unreadable: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{run} cannot be read: {reason}" for run, reason in self.unreadable.items()]
        sets = dict.fromkeys(name for run in self.runs for name in run.bits_per_byte)
        if rows := [_cells(run, [*sets]) for run in self.runs]:
            columns = [name for name in rows[0] if any(row[name] for row in rows)]
            cells = [[row[name] for name in columns] for row in rows]
            lines.insert(0, markdown_table(columns, cells))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The reports and what could not be read, ready for JSON; NaN becomes None."""
        runs = [_without_nan(asdict(run)) for run in self.runs]
        return {"runs": runs, "unreadable": dict(self.unreadable)}

    def plot(self, file: str | Path) -> None:
        """Write a PNG with the validation perplexity of every run over the tokens trained on.

        It is per token if all runs have the same tokenizer, and otherwise per byte, which can be
        compared. Where held-out sets have names, it is bits per byte, in a panel for each set.

        Raises:
            UserError: no run has been validated yet.
        """
        validated = [run for run in self.runs if self.curves[run.run]["token"]]
        if not validated:
            raise UserError("There is nothing to plot: none of the runs has been validated yet.")
        if any(name for run in validated for name in run.bits_per_byte):
            panels: dict[str, dict[str, Curve]] = {}
            for run in validated:
                for name, curve in self.bits_per_byte[run.run].items():
                    panels.setdefault(name or "held-out text", {})[run.run] = curve
            plot_bits_per_byte(panels, Path(file))
            return
        unit = "token" if len({run.tokenizer for run in validated}) == 1 else "byte"
        curves = {run.run: self.curves[run.run][unit] for run in validated}
        plot_perplexity(curves, Path(file), f"Perplexity per {unit}")


@checked
def list_runs(places: PathOrName | Sequence[PathOrName] = ("runs",)) -> RunList:
    """Read and summarise run folders; the runs may be in progress.

    Args:
        places: Run folders, or folders with run folders in them at any depth; also ``gs://``.

    Raises:
        UserError: a place is missing or cannot be reached, or none contains a run.
    """
    places = [places] if isinstance(places, str | Path) else places
    runs, curves, bits, unreadable = [], {}, {}, {}
    for folder in dict.fromkeys(found for place in places for found in _find_all(str(place))):
        run = str(folder)
        try:
            lines = read_metrics(run)
            runs.append(_report(folder, lines))
            curves[run] = {unit: validation_curve(lines, unit) for unit in NORMALISATIONS}
            bits[run] = bits_per_byte(lines)
        except Exception as error:  # One bad run must not hide the others, whatever it holds.
            unreadable[run] = " ".join(str(error).split())
    if not runs and not unreadable:
        raise UserError(f"There is no run in {', '.join(map(str, places))}: name other folders.")
    return RunList(runs, curves, bits, unreadable)


def _find_all(place: str) -> list[epath.Path]:
    with storage_errors(place):
        if not epath.Path(place).is_dir():
            raise UserError(
                f"{place} is not a folder: name run folders, or a folder that contains some."
            )
        return sorted(_find(epath.Path(place)))


def _find(place: epath.Path) -> Iterator[epath.Path]:
    """The run folders in a folder, or the folder itself; each once, even if linked repeatedly."""
    real, linked, seen = deque([place]), deque[epath.Path](), set[str]()
    while real or linked:
        folder = (real or linked).popleft()
        name = str(folder) if is_address(str(folder)) else os.path.realpath(folder)
        if name in seen:
            continue
        seen.add(name)
        if len(seen) > MOST_FOLDERS:
            raise UserError(
                f"{place} has more than {MOST_FOLDERS:,} folders: name the one with the runs."
            )
        if (folder / RECORD).exists():
            yield folder
            continue
        with suppress(PermissionError) if folder != place else nullcontext():
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.name.startswith("."):
                    link = not is_address(str(entry)) and Path(entry).is_symlink()
                    (linked if link else real).append(entry)


def _report(folder: epath.Path, lines: Sequence[Mapping[str, Any]]) -> RunReport:
    config = RunConfig.from_yaml(str(folder / CONFIG))
    record = read_record(str(folder))
    metrics = folder / METRICS
    first = next(iter(validation_sets(lines)), "")
    loss, token, word, byte = (
        validation_metric(first, figure)
        for figure in ("loss", *(f"{unit}_perplexity" for unit in NORMALISATIONS))
    )
    losses = {line["step"]: line[loss] for line in lines if math.isfinite(line.get(loss, math.nan))}
    last: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0}
    for line in lines:
        last |= line

    def median(key: str) -> float | None:
        values = [line[key] for line in lines if key in line]
        return statistics.median(values) if values else None

    return RunReport(
        run=str(folder),
        model=public_name(config.model.path),
        init=config.model.init,
        parameters=record["parameters"],
        tokenizer=record["hashes"]["tokenizer"],
        step=last["step"],
        steps=max(config.train.steps, last["step"]),
        tokens=last["tokens"],
        loss=last.get("train/loss"),
        token_perplexity=last.get(token),
        word_perplexity=last.get(word),
        byte_perplexity=last.get(byte),
        bits_per_byte={name: curve[-1][1] for name, curve in bits_per_byte(lines).items()},
        best_step=min(losses, key=losses.__getitem__, default=None),
        tokens_per_second=median("speed/tokens_per_second"),
        tokens_per_second_per_chip=median("speed/tokens_per_second_per_chip"),
        mfu=median("speed/mfu"),
        goodput=last.get("time/goodput"),
        seconds=last["seconds"],
        skipped_steps=last.get("train/skipped_steps", 0),
        written=_iso(metrics.stat().mtime) if metrics.exists() else None,
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if value != value else value


def _cells(run: RunReport, sets: Sequence[str]) -> dict[str, str]:
    """The cells of a run's row by column, of which each held-out set has one.

    They are empty where a value is not known.
    """

    def shown(value: float | int | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return {
        "run": run.run,
        "model": run.model + " (new weights)" * (run.init == "random"),
        "parameters": f"{run.parameters:,}",
        "step": f"{run.step:,} of {run.steps:,}",
        "tokens": f"{run.tokens:,}",
        "loss": shown(run.loss, ".3f"),
        "perplexity per token": shown(run.token_perplexity, ",.4g"),
        "per word": shown(run.word_perplexity, ",.4g"),
        "per byte": shown(run.byte_perplexity, ",.4g"),
        **{
            f"bits per byte{name and f', {name}'}": shown(run.bits_per_byte.get(name), ".3f")
            for name in sets
        },
        "best at step": shown(run.best_step, ","),
        "tokens/s": shown(run.tokens_per_second, ",.0f"),
        "per chip": shown(run.tokens_per_second_per_chip, ",.0f"),
        "MFU": shown(run.mfu, ".1%"),
        "goodput": shown(run.goodput, ".1%"),
        "hours": f"{run.seconds / 3600:,.2f}",
        "skipped": f"{run.skipped_steps:,}" if run.skipped_steps else "",
        "state": "finished" if run.step >= run.steps else _age(run.written),
    }


def _iso(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _age(written: str | None) -> str:
    """How long ago it was, rounded down to one unit."""
    if written is None:
        return "not begun"
    now = datetime.datetime.now(datetime.UTC)
    seconds = max(0.0, (now - datetime.datetime.fromisoformat(written)).total_seconds())
    name, size = next((age for age in AGES if seconds >= age[1]), AGES[-1])
    return f"{seconds // size:.0f} {name} ago"
