"""A training run from the first check to the last checkpoint; it reads top to bottom."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices
from jaxtyping import PyTree

from clp_jax.checkpoint.hf import MODEL, load_model
from clp_jax.checkpoint.orbax import RunCheckpoints, latest_step
from clp_jax.config import RunConfig
from clp_jax.data.batches import TrainingBatches
from clp_jax.errors import RunStopped, UserError
from clp_jax.evaluate.perplexity import measure_perplexity
from clp_jax.evaluate.plots import plot_perplexity
from clp_jax.mesh import start_distributed, to_global
from clp_jax.models import Decoder, abstract_model, abstract_parameters, initialize
from clp_jax.train.card import run_card
from clp_jax.train.corpora import corpora_table
from clp_jax.train.folder import create_run, find_run
from clp_jax.train.inputs import Inputs, open_inputs
from clp_jax.train.interrupt import StopRequests
from clp_jax.train.metrics import RunLog, read_metrics
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import (
    abstract_optimizer,
    initialize_optimizer,
    make_train_step,
)

CURVE = "curve.png"
VALIDATION_METRICS = ("loss", "token_perplexity", "word_perplexity", "byte_perplexity")


@dataclass(frozen=True)
class RunSummary:
    """What a run came to."""

    folder: Path
    """The run folder."""
    steps: int
    """Optimizer steps in all."""
    tokens: int
    """Positions trained on: steps times batch size times sequence length."""
    loss: float
    """Training loss of the last step, in nats a token."""
    curve: tuple[tuple[int, float], ...]
    """Tokens and the token perplexity on the validation corpus; empty without one."""


def train_model(config: RunConfig, *, resume: bool = False) -> RunSummary:
    """Train a model as the configuration says; `load_model` reads the run folder.

    In a run of several processes all of them call it, and ``train.out`` is on a disk they share.

    Args:
        config: The configuration.
        resume: Continue the run in ``train.out`` from its newest checkpoint, exactly as if it had
            not been interrupted; start it where there is none.

    Raises:
        UserError: something of the model, the data, the mesh or the run folder is not as it should
            be, or the loss stops being a number.
        RunStopped: a SIGTERM, a SIGINT or a notice that the machines are about to be taken came
            while it trained; the state after the step that was going on is saved.
    """
    start_distributed()
    run, train, length = Path(config.train.out), config.train, config.data.sequence_length

    # Everything is checked before anything is computed or written.
    found = find_run(config, resume=resume)
    inputs = open_inputs(config, found=found)
    mesh = inputs.mesh
    optimizer = make_optimizer(config.optimizer, train.steps)
    batches = TrainingBatches(
        inputs.corpora,
        config.data.weights,
        sequence_length=length,
        batch_size=train.batch_size,
        seed=train.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    corpora = corpora_table(config, inputs.corpora, batches)

    # The step is compiled from shapes alone: what does not fit fails before a weight is read.
    model = abstract_model(inputs.decoder, dtype=jnp.dtype(train.dtype))
    graphdef, shapes = nnx.graphdef(model), abstract_parameters(model, mesh)
    eos_id = inputs.corpora[0].eos_id
    train_step = make_train_step(
        graphdef, shapes, optimizer, mesh=mesh, config=config, eos_id=eos_id
    )

    # A run starts from a model, or goes on from its own newest checkpoint.
    start = latest_step(run) or 0
    if not start:
        params = _first_parameters(config, inputs)
        optimizer_state = initialize_optimizer(optimizer, params, mesh)
    if not found:
        create_run(config, inputs.files, corpora)
    if jax.process_index() == 0:
        print(corpora, flush=True)

    with (
        StopRequests() as requests,
        RunCheckpoints(run, keep=train.keep_checkpoints) as checkpoints,
        RunLog(
            run,
            start=start,
            steps=train.steps,
            tokens_per_step=train.batch_size * length,
            flops_per_token=model.flops_per_token(length),
        ) as log,
    ):
        position = 0
        if start:
            params, optimizer_state, data = checkpoints.restore(
                start, shapes, abstract_optimizer(optimizer, shapes, mesh)
            )
            position = batches.position(data)
        else:
            _validate(0, nnx.merge(graphdef, params), config, inputs, log)
        log.start_clock(start)

        steps = range(start + 1, train.steps + 1)
        for step, batch in zip(steps, log.awaited(batches.starting_at(position)), strict=False):
            rows = {key: to_global(batch[key], mesh) for key in ("tokens", "mask")}
            params, optimizer_state, metrics = train_step(
                params, optimizer_state, np.int32(step - 1), rows
            )
            last = step == train.steps
            if last or step % train.log_every == 0:
                _check_finite(step, metrics["loss"])
                log.training(step, metrics)
            if last or step % train.validate_every == 0:
                _validate(step, nnx.merge(graphdef, params), config, inputs, log)
            stopping = requests.reached(step) and not last
            if last or step % train.checkpoint_every == 0 or stopping:
                _check_finite(step, metrics["loss"])
                data = batches.state(step * train.batch_size)
                checkpoints.save(step, params, optimizer_state, data)
                log.start_clock(step)
            log.advance()
            if stopping:
                raise RunStopped(f"{run} was told to stop and is saved at step {step}.")

    if jax.process_index() == 0:
        card = run_card(config, corpora, read_metrics(run))
        (run / MODEL / "README.md").write_text(card, "utf-8")
    sync_global_devices("the run is complete")
    return _summary(run)


def validation_curve(run: str | Path) -> tuple[tuple[int, float], ...]:
    """Tokens trained on and the token perplexity of each validation of a run."""
    key = "validation/token_perplexity"
    return tuple((line["tokens"], line[key]) for line in read_metrics(run) if key in line)


def _summary(run: Path) -> RunSummary:
    training = [line for line in read_metrics(run) if "train/loss" in line]
    last = training[-1]
    return RunSummary(
        folder=run,
        steps=last["step"],
        tokens=last["tokens"],
        loss=last["train/loss"],
        curve=validation_curve(run),
    )


def _first_parameters(config: RunConfig, inputs: Inputs) -> PyTree:
    """The float32 parameters that a new run starts with, in their places on the mesh."""
    section = config.model
    if section.init == "random":
        model = initialize(inputs.decoder, seed=config.train.seed, mesh=inputs.mesh)
    else:
        model = load_model(
            section.path, mesh=inputs.mesh, dtype=jnp.float32, revision=section.revision
        )
    return nnx.to_pure_dict(nnx.state(model))


def _validate(step: int, model: Decoder, config: RunConfig, inputs: Inputs, log: RunLog) -> None:
    """Measure the perplexity on the validation corpus, where there is one, and plot the curve."""
    if inputs.validation is None:
        return
    perplexity = measure_perplexity(
        model,
        inputs.validation,
        sequence_length=config.data.sequence_length,
        batch_size=config.train.batch_size // config.train.accumulation,
        mesh=inputs.mesh,
    )
    log.validation(step, {name: getattr(perplexity, name) for name in VALIDATION_METRICS})
    if jax.process_index() == 0:
        run = Path(config.train.out)
        title = f"{run.name}: perplexity per token"
        plot_perplexity({run.name: validation_curve(run)}, run / CURVE, title)


def _check_finite(step: int, loss: jax.Array) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"The loss is {loss} at step {step}: lower optimizer.learning_rate or lengthen "
            "optimizer.warmup_steps; the checkpoints before it are kept."
        )
