"""Steps to skip: their loss or gradient is not finite, or their gradient is a spike."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

HORIZON = 20
"""Steps over which the level of the gradient norms is averaged; before them it is not used."""


class Health(NamedTuple):
    """The level of the gradient norms so far; part of the optimizer's state."""

    steps: Int[Array, ""]
    """Steps that had a gradient."""
    log_norm: Float[Array, ""]
    """Mean logarithm of their norms: over all steps at first, later mostly over the last ones."""

    @classmethod
    def new(cls) -> "Health":
        """The initial level: nothing is known yet."""
        return cls(jnp.int32(0), jnp.float32(0))


class StepCheck(NamedTuple):
    """The result of checking a step."""

    skipped: Bool[Array, ""]
    """The step must change nothing."""
    spike: Bool[Array, ""]
    """Its gradient norm is finite, but far above the level."""


def check_step(
    health: Health,
    loss: Float[Array, ""],
    gradient_norm: Float[Array, ""],
    *,
    spike_factor: float,
) -> tuple[StepCheck, Health]:
    """Check whether a step may be taken, and update the level of the norms.

    A norm above the limit, ``spike_factor`` times the level, enters the level as the limit: a
    lasting rise is accepted after a while, and a single spike hardly moves the level.

    Args:
        health: The level before the step.
        loss: The step's loss.
        gradient_norm: The norm of its gradients before clipping.
        spike_factor: Norms above this many times the level are spikes; 0: none are.
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
    """Too many steps in a row changed nothing, so ``train.on_skipped`` applies.

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
    """In a row, up to the last step."""
    total: int = 0
    """Since the run began."""


class SkippedSteps:
    """Counts the skipped steps.

    The result of a step is read after the next step is handed to the devices, so that they have
    work while the host waits.

    Args:
        limit: This many in a row are too many.
        before: The counts before the first step.
    """

    def __init__(self, limit: int, before: Skipped):
        self._limit = limit
        self._count = before
        self._open: tuple[int, Float[Array, ""]] | None = None

    def add(self, step: int, skipped: Float[Array, ""]) -> None:
        """Record whether a step was skipped, 1 or 0, and read the result of the one before it.

        Raises:
            TooManySkipped: the step before it reached the limit.
        """
        self.settled()
        self._open = (step, skipped)

    def settled(self) -> Skipped:
        """The counts up to the last recorded step, whose result is waited for.

        Raises:
            TooManySkipped: that step reached the limit.
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
