"""What is compared: runs with their curves and costs, and models."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from clp_jax.checkpoint.hub import model_files, read_config
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.files import local_path, public_name
from clp_jax.models import DecoderConfig, abstract_model, read_decoder_config
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.inputs import read_decoder
from clp_jax.train.metrics import read_metrics, validation_curve, validation_sets
from clp_jax.train.run_folder import CONFIG, FREE, RECORD, flat_settings, read_record
from clp_jax.train.teacher import open_teacher

ONLY_SET = "validation"
"""The name of a validation set that has none."""


class Point(NamedTuple):
    """A measurement on a validation set.

    Attributes:
        tokens: positions trained on before it.
        bits_per_byte: of the set's text.
        tokens_per_word: of the set's text, its end-of-text tokens included.
    """

    tokens: int
    bits_per_byte: float
    tokens_per_word: float


@dataclass(frozen=True)
class Training:
    """What a run has cost so far, and how it was set up.

    Attributes:
        tokens: positions trained on.
        flops_per_token: of a step, without recomputation; None if the teacher is not at hand.
        seconds: of all sessions.
        chips: devices of the first session; None in records that lack it.
        device: their kind.
        seed: of the run.
        settings: everything else that decides its results, and the hashes of its data.
    """

    tokens: int
    flops_per_token: int | None
    seconds: float
    chips: int | None
    device: str | None
    seed: int
    settings: Mapping[str, Any]

    @property
    def flops(self) -> float | None:
        """Of all steps."""
        return None if self.flops_per_token is None else self.flops_per_token * float(self.tokens)

    @property
    def chip_hours(self) -> float | None:
        """Hours of all sessions, times the chips."""
        return None if self.chips is None else self.chips * self.seconds / 3600


@dataclass(frozen=True)
class Subject:
    """A run or a model.

    Attributes:
        label: the shortest end of its path that names it alone.
        path: as it was given.
        start: what the weights of a run come from; empty for a model.
        parameters: of the model.
        rows: of its token embedding.
        sets: the measurements on each validation set, in the order of training.
        training: of a run.
    """

    label: str
    path: str
    start: str
    parameters: int
    rows: int
    sets: Mapping[str, Sequence[Point]]
    training: Training | None


def open_subjects(paths: Sequence[str | Path]) -> list[Subject]:
    """Read runs and models; of models only their configurations.

    Args:
        paths: run folders, Hugging Face folders and hub ids.

    Raises:
        UserError: one is neither, is damaged, or is given twice.
    """
    names = [str(path).rstrip("/") for path in paths]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"{twice[0]} is given twice: compare different runs and models.")
    return [_open(name, label) for name, label in zip(names, short_labels(names), strict=True)]


def short_labels(names: Sequence[str]) -> list[str]:
    """For each path its shortest end, in whole parts, that no other path has."""
    labels = []
    for name in names:
        parts = Path(name).parts
        others = [Path(other).parts for other in names if other != name]
        count = next(
            (n for n in range(1, len(parts)) if all(parts[-n:] != p[-n:] for p in others)),
            len(parts),
        )
        labels.append("/".join(parts[-count:]))
    return labels


def _open(name: str, label: str) -> Subject:
    if (Path(name) / RECORD).exists():
        return _open_run(local_path(name), label)
    files = model_files(name)
    decoder = read_decoder_config(read_config(files), files / "config.json")
    return Subject(label, name, "", _parameters(decoder), decoder.vocab_size, {}, None)


def _open_run(folder: Path, label: str) -> Subject:
    config = RunConfig.from_yaml(str(folder / CONFIG))
    decoder = read_decoder(folder / MODEL, config.model)
    lines, record = read_metrics(folder), read_record(folder)
    last: dict[str, Any] = {"tokens": 0, "seconds": 0.0}
    for line in lines:
        last |= line
    devices = record.get("devices", {})
    kept = {"train.seed", "data.validation", *FREE}
    settings = {key: value for key, value in flat_settings(config).items() if key not in kept}
    model = public_name(config.model.path)
    return Subject(
        label=label,
        path=str(folder),
        start=f"{'weights' if config.model.init == 'pretrained' else 'shape'} of {model}",
        parameters=_parameters(decoder),
        rows=decoder.vocab_size,
        sets={name or ONLY_SET: _points(lines, name) for name in validation_sets(lines)},
        training=Training(
            tokens=last["tokens"],
            flops_per_token=_flops_per_token(config, decoder),
            seconds=last["seconds"],
            chips=devices.get("count"),
            device=devices.get("kind"),
            seed=config.train.seed,
            settings=settings | {"model": model, "hashes": record["hashes"]},
        ),
    )


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """The finite measurements on a validation set."""
    units = (validation_curve(lines, unit, name) for unit in ("byte", "word", "token"))
    found = []
    for (tokens, byte), (_, word), (_, token) in zip(*units, strict=True):
        if all(map(math.isfinite, (byte, word, token))):
            found.append(Point(tokens, math.log2(byte), math.log(word) / math.log(token)))
    return found


def _parameters(decoder: DecoderConfig) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract_model(decoder))))


def _flops_per_token(config: RunConfig, decoder: DecoderConfig) -> int | None:
    with suppress(UserError):  # The teacher may be gone; its files are not in the run folder.
        return step_flops_per_token(abstract_model(decoder), config, open_teacher(config, decoder))
    return None
