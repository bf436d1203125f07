"""The configuration of a fine-tuning run: what suits a task, unless it is given."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clp_jax.config import RunConfig
from clp_jax.data.corpus.examples import Example
from clp_jax.errors import UserError

Settings = Mapping[str, Mapping[str, Any]]
"""Keys of a `RunConfig` by section."""

ANSWERS = "answers"
"""The name of the held-out set in metrics, tables and plots."""
TAKEN = {
    ("model", "path"): "model",
    ("data", "train"): "task",
    ("data", "validation"): "task",
    ("train", "out"): "out",
}
"""Keys that fine-tuning sets itself, and the argument that decides them."""
LENGTHS = 32
"""Sequence lengths are a multiple of this."""
VALIDATIONS = 2
"""Per epoch."""


def check_settings(given: Settings, model: str) -> RunConfig:
    """A configuration with what is given, before anything is known of the examples.

    Raises:
        UserError: a key or its value is not accepted, or fine-tuning sets it itself.
    """
    for (section, key), argument in TAKEN.items():
        if key in given.get(section, {}):
            raise UserError(
                f"{section}.{key} is set by fine-tuning itself: leave it out, and give {argument}."
            )
    return _config(given, {"model": {"path": model}, "train": {"steps": 1}}, Path())


def run_config(
    given: Settings,
    examples: Sequence[Example],
    *,
    model: str,
    out: Path,
    seed: int,
    epochs: float,
    positions: int | None,
) -> RunConfig:
    """The configuration of a run; keys that are not given suit the examples.

    Args:
        given: Keys by section.
        examples: The examples to train on.
        model: The model to start from.
        out: The folder of the examples and the runs.
        seed: Of the run.
        epochs: How often each example is seen.
        positions: The longest sequence that the model reads; None: any.

    Raises:
        UserError: a key or its value is not accepted.
    """
    checked = check_settings(given, model)
    longest = max(len(one.question) + len(one.answer) for one in examples) - 1
    length = -(-longest // LENGTHS) * LENGTHS
    per_epoch = len(examples) / checked.train.batch_size
    steps = max(2, math.ceil(epochs * per_epoch))
    if "steps" in given.get("train", {}):
        steps = checked.train.steps
    often = min(steps, math.ceil(per_epoch / VALIDATIONS))
    suited: Settings = {
        "model": {"path": model},
        "data": {"sequence_length": length if positions is None else min(length, positions)},
        "optimizer": {
            "learning_rate": 2e-4 if checked.lora.r else 2e-5,
            "warmup_steps": steps // 10,
        },
        "train": {
            "steps": steps,
            "validate_every": often,
            "checkpoint_every": often,
            "keep_checkpoints": 1,
            "patience": 3,
        },
    }
    config = _config(given, suited, out / f"seed-{seed}")
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})


def _config(given: Settings, suited: Settings, run: Path) -> RunConfig:
    """A configuration with the keys of both; ``given`` decides what both have."""
    train, held_out = example_folders(run.parent)
    places: Settings = {
        "data": {"train": str(train), "validation": {ANSWERS: str(held_out)}},
        "train": {"out": str(run)},
    }
    values: dict[str, dict[str, Any]] = {}
    for part in (suited, given, places):
        for section, keys in part.items():
            values.setdefault(section, {}).update(keys)
    return RunConfig.from_dict(values, origin="fine-tuning")


def example_folders(out: Path) -> tuple[Path, Path]:
    """The corpora of the examples to train on, and of the held-out ones."""
    return out / "examples" / "train", out / "examples" / "heldout"
