"""Whether models come from one base: the same configuration, and weights that are close."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from tqdm import tqdm

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.errors import UserError
from clp_jax.models import DecoderConfig

MOST_TUNED = 0.5
"""The largest difference between an instruct model and its base, relative to the base."""
MOST_ADAPTED = 1.0
"""The same for the adapted model, which was trained on much more text."""
_FREE = {
    "vocab_size",
    "embedding_dropout",
    "attention_dropout",
    "residual_dropout",
    "initializer_range",
    "lora",
}
"""Fields of a configuration in which models of one base may differ."""
_BLOCK = 1 << 16
"""Values compared at a time."""


def check_configs(base: str, reference: DecoderConfig, name: str, config: DecoderConfig) -> None:
    """Refuse a model whose layers are not those of the base.

    Args:
        base: Name of the base.
        reference: Its configuration.
        name: Name of the other model.
        config: Its configuration.

    Raises:
        UserError: names the fields that differ.
    """
    if type(config) is not type(reference):
        raise UserError(f"{name} and {base} have different architectures: name models of one base.")
    different = [
        _described(field.name, getattr(config, field.name), getattr(reference, field.name))
        for field in fields(config)
        if field.name not in _FREE and getattr(config, field.name) != getattr(reference, field.name)
    ]
    if different:
        raise UserError(
            f"{name} and {base} differ in {', '.join(different)}: name models of one base."
        )


def _described(name: str, value: Any, reference: Any) -> str:
    plain = isinstance(value, int | float | str | None) and isinstance(
        reference, int | float | str | None
    )
    return f"{name} ({value}, not {reference})" if plain else name


def relative_difference(
    tensors: Mapping[str, LazyTensor], reference: Mapping[str, LazyTensor], names: Iterable[str]
) -> float:
    """How far some matrices are from others: ‖W - W₀‖ / ‖W₀‖, Frobenius norms over all of them.

    Two models that were trained from different random weights of the same scale are √2 apart.
    Vectors are left out: those of norms are alike in all models.

    Args:
        tensors: The matrices W by name; one at a time is read.
        reference: The matrices W₀.
        names: Those to compare.
    """
    matrices = [name for name in names if len(tensors[name].shape) > 1]
    distance = norm = 0.0
    for name in tqdm(matrices, desc="comparing weights", disable=None, leave=False):
        ours, theirs = tensors[name].read().reshape(-1), reference[name].read().reshape(-1)
        for start in range(0, ours.size, _BLOCK):
            w = ours[start : start + _BLOCK].astype(np.float64)
            w0 = theirs[start : start + _BLOCK].astype(np.float64)
            distance += float(np.square(w - w0).sum())
            norm += float(np.square(w0).sum())
    return math.sqrt(distance / norm) if norm else math.inf


def check_difference(base: str, name: str, difference: float, most: float) -> None:
    """Refuse a model whose weights are too far from the base's.

    Raises:
        UserError: they are.
    """
    if difference > most:
        raise UserError(
            f"The weights of {name} differ from those of {base} by {difference:.0%} of their norm, "
            f"and training changes them by less than {most:.0%}: name the base it comes from."
        )
