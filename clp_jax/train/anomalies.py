"""Steps that must not count: losses that are NaN, and gradients far above their level."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

HORIZON = 20
"""Steps over which the level of the gradient norms is averaged, and before which it is not used."""


class Health(NamedTuple):
    """The level of the gradient norms so far; a part of the optimizer's state."""

    steps: Int[Array, ""]
    """Steps that had a gradient."""
    log_norm: Float[Array, ""]
    """Mean of the logarithms of their norms: of all at first, later mostly of the last ones."""

    @classmethod
    def new(cls) -> "Health":
        """Nothing is known yet."""
        return cls(jnp.int32(0), jnp.float32(0))


class StepCheck(NamedTuple):
    """What is wrong with a step."""

    skipped: Bool[Array, ""]
    """It must change nothing."""
    spike: Bool[Array, ""]
    """Its gradient norm is a number, but far above the level."""


def check_step(
    health: Health,
    loss: Float[Array, ""],
    gradient_norm: Float[Array, ""],
    *,
    spike_factor: float,
) -> tuple[StepCheck, Health]:
    """Whether a step may be taken, and the level of the norms with it.

    A norm above the limit, ``spike_factor`` times the level, enters the level as the limit: a rise
    that stays is accepted after a while, a single spike hardly moves the level.

    Args:
        health: The level before the step.
        loss: The step's loss.
        gradient_norm: The norm of its gradients before clipping.
        spike_factor: Norms above so many times the level are spikes; 0: none are.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    log_norm, log_limit = jnp.log(gradient_norm), jnp.float32(jnp.inf)
    if spike_factor:
        known = health.steps >= HORIZON
        log_limit = jnp.where(known, health.log_norm + jnp.log(spike_factor), jnp.inf)
    spike = finite & (log_norm > log_limit)
    weight = 1 / jnp.minimum(health.steps + 1, HORIZON)
    mean = health.log_norm + weight * (jnp.minimum(log_norm, log_limit) - health.log_norm)
    counts = finite & (gradient_norm > 0)
    return StepCheck(~finite | spike, spike), Health(
        health.steps + counts, jnp.where(counts, mean, health.log_norm)
    )


class TooManySkipped(Exception):
    """So many steps in a row changed nothing that the rule of the run is to be followed.

    Args:
        step: The last of them.
    """

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


@dataclass(frozen=True)
class Skipped:
    """How many steps changed nothing."""

    in_a_row: int = 0
    """Up to the last one."""
    total: int = 0
    """Since the run began."""


class SkippedSteps:
    """Counts the skipped steps.

    What became of a step is looked at when the next one was handed to the devices, so that they
    have work while the host waits for it.

    Args:
        limit: So many in a row are too many.
        before: How many there were before the first step.
    """

    def __init__(self, limit: int, before: Skipped):
        self._limit = limit
        self._count = before
        self._open: tuple[int, Float[Array, ""]] | None = None

    def add(self, step: int, skipped: Float[Array, ""]) -> None:
        """Note what a step says of itself, 1 or 0, and look at the one before it.

        Raises:
            TooManySkipped: that was one too many.
        """
        self.settled()
        self._open = (step, skipped)

    def settled(self) -> Skipped:
        """How many there are up to the last step that was noted, which is waited for.

        Raises:
            TooManySkipped: too many.
        """
        if self._open is not None:
            step, skipped = self._open
            self._open = None
            if jax.device_get(skipped):
                self._count = Skipped(self._count.in_a_row + 1, self._count.total + 1)
            else:
                self._count = Skipped(0, self._count.total)
            if self._count.in_a_row >= self._limit:
                raise TooManySkipped(step)
        return self._count
