"""Measure the held-out sets during a run, plot the curve, and decide when a run stops early."""

import math
from collections.abc import Mapping
from pathlib import Path

import jax
from flax import nnx
from jaxtyping import PyTree

from clp_jax.config import RunConfig
from clp_jax.evaluate.perplexity import Perplexity, measure_perplexity
from clp_jax.evaluate.plots import plot_bits_per_byte, plot_perplexity
from clp_jax.train.inputs import Inputs
from clp_jax.train.metrics import (
    RunLog,
    bits_per_byte,
    read_metrics,
    validation_curve,
    validation_sets,
)
from clp_jax.train.rows import mean_norms

CURVE = "curve.png"
VALIDATION_METRICS = (
    "loss",
    "token_perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
)


def validate(
    step: int,
    graphdef: nnx.GraphDef,
    params: PyTree,
    config: RunConfig,
    inputs: Inputs,
    log: RunLog,
) -> float:
    """Measure the held-out sets, if any, and plot the curve.

    Args:
        step: The step after which this is.
        graphdef: The model's structure.
        params: Its parameters.
        config: The run's configuration.
        inputs: Its inputs, the held-out sets among them.
        log: Gets what is measured.

    Returns:
        The loss of the first set, or NaN without one.
    """
    if not inputs.validation:
        return math.nan
    model = nnx.merge(graphdef, params)
    train, found = config.train, dict[str, Perplexity]()
    with log.during("validation"):
        for name, corpus in inputs.validation.items():
            found[name] = measure_perplexity(
                model,
                corpus,
                sequence_length=config.data.sequence_length,
                batch_size=train.batch_size // train.gradient_accumulation_steps,
                mesh=inputs.mesh,
            )
        norms = mean_norms(params["token_embedding"]["embedding"], inputs.origins)
    figures = {
        name: {figure: getattr(perplexity, figure) for figure in VALIDATION_METRICS}
        for name, perplexity in found.items()
    }
    log.validation(step, figures, norms)
    if jax.process_index() == 0:
        _plot(log.folder)
    return next(iter(found.values())).loss


def _plot(folder: Path) -> None:
    """Plot the perplexity of the held-out text, or bits per byte where sets of it have names."""
    lines, out = read_metrics(folder), folder / CURVE
    if validation_sets(lines) == [""]:
        curve = {folder.name: validation_curve(lines)}
        plot_perplexity(curve, out, f"{folder.name}: perplexity per token")
    else:
        plot_bits_per_byte({f"{folder.name}: held-out text": bits_per_byte(lines)}, out)


def best_step(losses: Mapping[int, float]) -> int | None:
    """The step after which the held-out loss is lowest, the start aside; None if there is none."""
    measured = {step: loss for step, loss in losses.items() if step and math.isfinite(loss)}
    return min(measured, key=measured.__getitem__, default=None)


def out_of_patience(losses: Mapping[int, float], patience: int) -> bool:
    """Whether the last ``patience`` measurements brought no lower loss; never if it is 0."""
    best = best_step(losses)
    return 0 < patience <= sum(step > (best or 0) for step in losses)


def is_over(step: int, losses: Mapping[int, float], config: RunConfig) -> bool:
    """Whether a run has nothing left to train or to measure.

    Args:
        step: The step of its newest state; if it has stopped early, that of the best one.
        losses: The loss on the first held-out set by step.
        config: Its configuration.
    """
    measured = not config.data.validation or config.train.steps in losses
    if config.train.patience:
        ended = measured or out_of_patience(losses, config.train.patience)
        return ended and step >= (best_step(losses) or 0)
    return measured and step >= config.train.steps
