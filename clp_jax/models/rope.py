"""Rotary position embeddings (Su et al. 2021, arXiv 2104.09864), also scaled to longer texts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clp_jax.errors import UserError


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each position, for the first half of a head's width."""

    cos: Float[Array, "#batch length half"]
    sin: Float[Array, "#batch length half"]


def rotate(
    x: Float[Array, "batch length heads dim"], rotation: Rotation
) -> Float[Array, "batch length heads dim"]:
    """Rotate each pair of elements i and i + dim / 2, in float32; the result has the dtype of x."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = (angles[:, :, None] for angles in rotation)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


@dataclass(frozen=True)
class RotaryEmbedding:
    """The angles of each position: its number times a frequency for each pair of elements."""

    frequencies: tuple[float, ...]
    """Radians per position; half as many as a head is wide."""
    factor: float = 1.0
    """Factor of the cosines and sines."""
    max_positions: int | None = None
    """Number of positions up to which the frequencies hold; None: any."""

    @classmethod
    def from_hf(
        cls, parameters: Mapping[str, Any], *, head_dim: int, max_positions: int
    ) -> "RotaryEmbedding":
        """Read ``rope_parameters`` as `transformers` completes them, with the same formulas.

        Args:
            parameters: The settings of one rotary embedding.
            head_dim: Width of a head.
            max_positions: ``max_position_embeddings`` of the configuration.

        Raises:
            UserError: the kind of scaling is not supported, or a value is invalid.
        """
        kind = parameters.get("rope_type", "default")
        if str(kind) not in SCALINGS:
            raise UserError(
                f"rope_type {kind!r} is not supported; choose one of {', '.join(SCALINGS)}."
            )
        if parameters.get("partial_rotary_factor", 1) not in (None, 1):
            raise UserError(
                f"partial_rotary_factor={parameters['partial_rotary_factor']!r} is not supported."
            )
        if head_dim % 2:
            raise UserError(f"head_dim is {head_dim}, but rotary embeddings need an even one.")
        settings = _Settings(parameters, head_dim)
        frequencies, factor = SCALINGS[kind](settings)
        return cls(
            tuple(frequencies.tolist()), factor, max_positions if kind == "dynamic" else None
        )

    def __call__(self, positions: Int[Array, "#batch length"]) -> Rotation:
        """Cosines and sines at these positions, in float32."""
        frequencies = jnp.array(self.frequencies, jnp.float32)[None, None, :]
        angles = positions[:, :, None].astype(jnp.float32) * frequencies
        return Rotation(self.factor * jnp.cos(angles), self.factor * jnp.sin(angles))


MOST = 1e12
"""Above all settings of ``rope_parameters``."""


class _Settings(NamedTuple):
    """``rope_parameters`` and the width of a head."""

    values: Mapping[str, Any]
    head_dim: int

    def number(self, key: str, default: int | None = None, *, above: int = 0) -> float:
        """A number above a limit and not beyond what is useful."""
        value: Any = default if self.values.get(key) is None else self.values[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not above < value < MOST:
            raise UserError(
                f"{key} of rope_parameters is {value!r:.40}, but must exceed {above} and be less "
                f"than {MOST:g}."
            )
        return float(value)

    def frequencies(self) -> Float[np.ndarray, " half"]:
        """The frequencies without scaling, in float32 as in `transformers`."""
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float32) / np.float32(self.head_dim)
        return 1 / np.float32(self.number("rope_theta", above=1)) ** exponents


_Scaled = tuple[Float[np.ndarray, " half"], float]


def _unscaled(settings: _Settings) -> _Scaled:
    return settings.frequencies(), 1.0


def _linear(settings: _Settings) -> _Scaled:
    return settings.frequencies() / np.float32(settings.number("factor")), 1.0


def _dynamic(settings: _Settings) -> _Scaled:
    settings.number("factor")  # It matters only beyond `max_position_embeddings`.
    return _unscaled(settings)


def _llama3(settings: _Settings) -> _Scaled:
    """Long waves are stretched by the factor, short ones are not, and those between by less."""
    factor = settings.number("factor")
    low, high = settings.number("low_freq_factor"), settings.number("high_freq_factor")
    if low >= high:
        raise UserError(
            f"high_freq_factor of rope_parameters is {high}, but must be above low_freq_factor, "
            f"which is {low}."
        )
    plain = settings.frequencies()
    waves = settings.number("original_max_position_embeddings") * plain / (2 * math.pi)
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return ((1 - kept) * plain / factor + kept * plain).astype(np.float32), 1.0


def _yarn(settings: _Settings) -> _Scaled:
    """As ``llama3``, but by a ramp over the frequencies' numbers (Peng et al. 2023, 2309.00071)."""
    factor, dim = settings.number("factor"), settings.head_dim
    base = settings.number("rope_theta", above=1)
    original = settings.number("original_max_position_embeddings")

    def number_of(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = (
        number_of(settings.number(*beta)) for beta in (("beta_fast", 32), ("beta_slow", 1))
    )
    if settings.values.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (np.arange(dim // 2, dtype=np.float32) - low) / (high - low if high != low else 0.001)
    kept = 1 - np.clip(ramp, 0, 1)
    plain = settings.frequencies()
    return (plain / factor * (1 - kept) + plain * kept).astype(np.float32), _yarn_factor(settings)


def _yarn_factor(settings: _Settings) -> float:
    """The factor of cosines and sines, which takes the place of a temperature of the scores."""
    stretched = math.log(max(1, settings.number("factor")))

    def growth(key: str) -> float:
        return 0.1 * settings.number(key) * stretched + 1

    if settings.values.get("attention_factor") is not None:
        return settings.number("attention_factor")
    if settings.values.get("mscale") and settings.values.get("mscale_all_dim"):
        return growth("mscale") / growth("mscale_all_dim")
    return 0.1 * stretched + 1


SCALINGS: Mapping[str, Callable[[_Settings], _Scaled]] = {
    "default": _unscaled,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}
"""Frequencies and factor by ``rope_type``. Dynamic ones depend on the length only beyond
``max_position_embeddings``."""
