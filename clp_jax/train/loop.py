"""A training run, from the first check to the last checkpoint."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices
from jaxtyping import PyTree

from clp_jax.arguments import checked
from clp_jax.checkpoint.card import CARD
from clp_jax.checkpoint.hf import load_model, load_parts
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.checkpoint.orbax import RunCheckpoints, restore_newest
from clp_jax.checkpoint.peft import adapter_config
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.config import RunConfig
from clp_jax.data.corpus.batches import TrainingBatches
from clp_jax.errors import RunStopped, UserError
from clp_jax.files import storage_errors, write_text
from clp_jax.mesh import decided_by_first, local_rows, shard_batch, start_distributed, to_host
from clp_jax.models import abstract_model, abstract_parameters, initialize, new_adapters
from clp_jax.models.lora import joined
from clp_jax.train.anomalies import Skipped, SkippedSteps, TooManySkipped
from clp_jax.train.fault_tolerance import RunLease, StopRequests, Watchdog
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.inputs import Inputs, corpora_table, open_inputs
from clp_jax.train.metrics import (
    RunLog,
    read_metrics,
    validation_curve,
    validation_metric,
)
from clp_jax.train.model_card import run_card
from clp_jax.train.optimizer import make_optimizer, trainable
from clp_jax.train.rows import TABLES, move_untouched
from clp_jax.train.run_folder import (
    RunStorage,
    compare_record,
    continue_run,
    create_run,
    find_run,
    run_record,
)
from clp_jax.train.step import (
    abstract_optimizer,
    initialize_optimizer,
    make_train_step,
)
from clp_jax.train.teacher import Lessons
from clp_jax.train.trackers import Profile, check_wandb, start_wandb
from clp_jax.train.validation import best_step, is_over, out_of_patience, validate

ROLLBACKS = 3
"""How often a run may return to the same checkpoint."""


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run."""

    folder: Path
    """The run folder."""
    steps: int
    """Optimizer steps of the model; with ``train.patience``, up to the lowest held-out loss."""
    tokens: int
    """Positions trained on: steps times batch size times sequence length."""
    loss: float
    """Training loss of the last step, in nats per token; NaN if it was not computed."""
    curve: tuple[tuple[int, float], ...]
    """Tokens trained on and perplexity per token of the first held-out set; empty without one."""


@dataclass(frozen=True)
class _Run:
    """What stays the same throughout a run."""

    config: RunConfig
    place: RunStorage
    lease: RunLease
    inputs: Inputs
    batches: TrainingBatches
    graphdef: nnx.GraphDef
    shapes: PyTree
    optimizer: optax.GradientTransformation
    step: Callable[..., tuple[PyTree, PyTree, dict[str, jax.Array]]]
    flops_per_token: int
    profile: bool
    began: float
    """`time.monotonic` when this session began."""


@dataclass(frozen=True)
class _State:
    """The state of a run after a step; its arrays are donated to the next step."""

    step: int
    params: PyTree
    optimizer: PyTree
    position: int
    """Sequences consumed so far."""
    skipped: Skipped
    """How many steps up to this one changed nothing."""
    rollbacks: int = 0
    """How often this session has returned to this state."""


@dataclass(frozen=True)
class _Lessons:
    """What a run with a teacher reads once."""

    embeddings: PyTree
    """Those of the source."""
    before: Mapping[str, np.ndarray]
    """The model's own tables before training."""


@checked
def train_model(config: RunConfig, *, resume: bool = False, profile: bool = False) -> RunSummary:
    """Train a model as configured; `load_model` reads the run folder.

    In a run of several processes all of them call this function, and ``train.out`` is on a disk
    they share or in a bucket.

    Args:
        config: The configuration.
        resume: Resume the run in ``train.out`` from its newest checkpoint, exactly as if it had not
            been interrupted; if there is none, start it.
        profile: Trace a few steps, after some untraced ones, into ``profile`` in the run folder.

    Raises:
        UserError: the model, the data, the mesh or the run folder is not valid, a checkpoint cannot
            be written, or too many steps in a row changed nothing.
        RunStopped: a SIGTERM, a SIGINT or a preemption notice arrived during training; the state
            after the current step is saved.
    """
    began = time.monotonic()
    start_distributed()
    place = RunStorage(config.train.out)
    with RunLease(place) as lease:
        return _train_model(config, place, lease, resume=resume, profile=profile, began=began)


def _train_model(
    config: RunConfig,
    place: RunStorage,
    lease: RunLease,
    *,
    resume: bool,
    profile: bool,
    began: float,
) -> RunSummary:
    train, length, folder = config.train, config.data.sequence_length, place.folder

    # Everything is checked before anything is computed or written.
    check_wandb(train.wandb)
    with storage_errors(place.out):
        found = decided_by_first(lambda: find_run(config, place.root, resume=resume))
    if found:
        lease.take()
    place.fetch()
    inputs = open_inputs(config, folder if found else None)
    if found:
        compare_record(folder, config, inputs)
    optimizer = make_optimizer(config.optimizer, train.steps)
    batches = TrainingBatches(
        inputs.corpora,
        config.data.weights,
        sequence_length=length,
        batch_size=train.batch_size,
        seed=train.seed,
        rows=local_rows(inputs.mesh, train.batch_size),
        extend=Lessons(inputs.teacher, load_tokenizer(inputs.files)) if inputs.teacher else None,
    )
    corpora = corpora_table(config, inputs.corpora, batches)

    # The step is compiled from shapes alone: if it does not fit, it fails before weights are read.
    model = abstract_model(inputs.decoder, dtype=jnp.dtype(train.dtype))
    graphdef, shapes = nnx.graphdef(model), abstract_parameters(model, inputs.mesh)
    eos_id = inputs.corpora[0].eos_id
    step = make_train_step(
        graphdef,
        shapes,
        optimizer,
        mesh=inputs.mesh,
        config=config,
        eos_id=eos_id,
        teacher=inputs.teacher,
        trained_rows=~inputs.copied if config.optimizer.new_rows_only else None,
    )
    flops = step_flops_per_token(model, config, inputs.teacher)
    run = _Run(
        config,
        place,
        lease,
        inputs,
        batches,
        graphdef,
        shapes,
        optimizer,
        step,
        flops,
        profile,
        began,
    )

    state = _load_state(run)
    lessons = _prepare_lessons(run, state.params) if state.step < train.steps else None
    if found:
        continue_run(config, place, state.step)
    else:
        record = run_record(config, inputs, shapes) if jax.process_index() == 0 else None
        adapter = None
        if config.lora.r:
            trained = trainable(shapes, config.optimizer)
            adapter = adapter_config(inputs.decoder, base=config.model.path, trained=trained)
        create_run(config, place, inputs.files, corpora, record, adapter)
        lease.take()
    if jax.process_index() == 0:
        print(corpora, flush=True)

    deciding = validation_metric(next(iter(inputs.validation), ""), "loss")
    lines = read_metrics(folder)
    losses = {line["step"]: line[deciding] for line in lines if deciding in line}
    wandb = start_wandb(config, folder)
    with (
        StopRequests() as requests,
        Watchdog(train.watchdog_minutes) as watchdog,
        RunCheckpoints(
            train.out,
            train.keep_checkpoints,
            keep_every=train.keep_every,
            keep_best=max(train.keep_best, bool(train.patience)),
            losses=losses,
        ) as checkpoints,
    ):
        while not is_over(state.step, losses, config):
            try:
                state = _train(run, state, lessons, losses, checkpoints, requests, watchdog, wandb)
                continue
            except TooManySkipped as error:
                bad = error.step
            # Outside the except clause: in it, the error keeps a second training state alive.
            watchdog.stage("the return to the newest checkpoint")
            checkpoints.wait()
            state = _rollback(run, state, bad)
            checkpoints.reload()
        steps = best_step(losses) if train.patience else None
        if steps is not None:
            watchdog.stage("the removal of the checkpoints after the best one")
            checkpoints.drop_after(steps)

    steps = steps or train.steps
    if wandb is not None:
        wandb.finish()
    lease.check()
    if jax.process_index() == 0:
        card = run_card(config, corpora, folder / MODEL, read_metrics(folder), steps)
        write_text(folder / MODEL / CARD, card)
    place.publish()
    sync_global_devices("the run is complete")
    place.fetch()
    return _summary(config, folder, steps)


def _prepare_lessons(run: _Run, params: PyTree) -> _Lessons | None:
    """Read what the steps of a run with a teacher need; ``params`` are the model's."""
    config, mesh, teacher = run.config, run.inputs.mesh, run.inputs.teacher
    if teacher is None:
        return None
    model, embeddings = config.model, teacher.embeddings(params, mesh)
    tables = load_parts(model.path, TABLES, mesh=mesh, dtype=jnp.float32, revision=model.revision)
    return _Lessons(embeddings, {part: to_host(x["embedding"]) for part, x in tables.items()})


def _train(
    run: _Run,
    state: _State,
    lessons: _Lessons | None,
    losses: dict[int, float],
    checkpoints: RunCheckpoints,
    requests: StopRequests,
    watchdog: Watchdog,
    wandb: Any,
) -> _State:
    """Train from a state to the last step; ``losses`` gets the first set's loss by step."""
    config, train, mesh = run.config, run.config.train, run.inputs.mesh
    params, optimizer_state = state.params, state.optimizer
    for measured in [step for step in losses if step > state.step]:
        del losses[measured]  # By a session that ended before its next checkpoint.
    taught = {} if lessons is None else {"teacher": lessons.embeddings}
    skipped = SkippedSteps(train.max_skipped, state.skipped)
    with RunLog(
        run.place.folder,
        start=state.step,
        steps=train.steps,
        tokens_per_step=train.batch_size * config.data.sequence_length,
        flops_per_token=run.flops_per_token,
        since=time.monotonic() if state.rollbacks else run.began,
        wandb=wandb,
    ) as log:
        profile = Profile(run.place.folder if run.profile else None, state.step, train.steps)
        if state.step in (0, train.steps):  # The latter: train.steps was lowered to it.
            watchdog.stage(f"the validation of step {state.step}")
            losses[state.step] = validate(state.step, run.graphdef, params, config, run.inputs, log)

        watchdog.stage("the wait for the first batch")
        step, steps = state.step, range(state.step + 1, train.steps + 1)
        following = log.awaited(run.batches.starting_at(state.position))
        for step, batch in zip(steps, following, strict=False):
            watchdog.stage(f"step {step}")
            profile.before(step)
            rows = {key: shard_batch(array, mesh) for key, array in batch.items()}
            params, optimizer_state, metrics = run.step(
                params, optimizer_state, np.int32(step - 1), rows | taught
            )
            profile.after(step, metrics)
            skipped.add(step, metrics["skipped"])
            checkpoints.check()
            last = step == train.steps
            if last or step % train.log_every == 0:
                log.training(step, metrics, skipped.settled().total)
            position = state.position + (step - state.step) * train.batch_size
            if last and lessons is not None:
                watchdog.stage("the rows that the text lacks")
                counts = run.batches.counts(position, run.inputs.decoder.vocab_size)
                params, facts = move_untouched(
                    params, lessons.before, counts, run.inputs.made, predicts=config.predicts
                )
                log.embeddings(step, facts)
            if last or step % train.validate_every == 0:
                watchdog.stage(f"the validation after step {step}")
                losses[step] = validate(step, run.graphdef, params, config, run.inputs, log)
            ended = last or out_of_patience(losses, train.patience)
            stopping = requests.reached(step) and not ended
            best = train.patience and best_step(losses) == step
            if last or step % train.checkpoint_every == 0 or stopping or best:
                watchdog.stage(f"the checkpoint of step {step}")
                data = run.batches.state(position) | {"skipped": asdict(skipped.settled())}
                run.lease.check()
                with log.during("saving"):
                    run.place.publish()
                    checkpoints.save(step, params, optimizer_state, data)
            log.advance()
            if stopping:
                log.print_time()
                raise RunStopped(f"{train.out} was asked to stop and is saved at step {step}.")
            if ended:
                break
            watchdog.stage(f"the wait for the batch after step {step}")
        log.print_time()
    watchdog.stage("the writing of the last checkpoint")
    return replace(state, step=step)


def _load_state(run: _Run) -> _State:
    """The state of a run's newest checkpoint, or of the model from which the run starts."""
    config, mesh = run.config, run.inputs.mesh
    found = restore_newest(
        config.train.out, run.shapes, abstract_optimizer(run.optimizer, run.shapes, mesh)
    )
    if found is not None:
        step, params, optimizer_state, data = found
        skipped = Skipped(**data["skipped"])
        return _State(step, params, optimizer_state, run.batches.position(data), skipped)
    if config.model.init == "random":
        model = initialize(run.inputs.decoder, seed=config.train.seed, mesh=mesh)
    else:
        model = load_model(
            config.model.path, mesh=mesh, dtype=jnp.float32, revision=config.model.revision
        )
    params = nnx.to_pure_dict(nnx.state(model))
    if config.lora.r:
        added = new_adapters(run.inputs.decoder, seed=config.train.seed, mesh=mesh)
        params = joined(params, added)
    optimizer_state = initialize_optimizer(run.optimizer, params, mesh)
    return _State(0, params, optimizer_state, position=0, skipped=Skipped())


def _rollback(run: _Run, state: _State, bad: int) -> _State:
    """The state of the newest checkpoint, but with the data that follow those of a bad step.

    Args:
        run: The run.
        state: The state from which this session trained.
        bad: The last of too many steps in a row that changed nothing.

    Raises:
        UserError: ``train.on_skipped`` is ``stop``, or the run has returned there too often.
    """
    train = run.config.train
    what = (
        f"{train.max_skipped} steps in a row, up to step {bad}, changed nothing, because their "
        "loss or gradient was NaN, infinite or a spike"
    )
    if train.on_skipped == "stop":
        raise UserError(
            f"{what}: lower optimizer.learning_rate, lengthen optimizer.warmup_steps, or resume "
            "with --train.on_skipped rollback, which skips their data."
        )
    newest = _load_state(run)
    rollbacks = state.rollbacks + 1 if newest.step == state.step else 1
    if rollbacks > ROLLBACKS:
        raise UserError(
            f"{what}, and {ROLLBACKS} returns to step {newest.step} did not help: lower "
            "optimizer.learning_rate and start a new run."
        )
    if jax.process_index() == 0:
        print(f"{what}: back to step {newest.step}, skipping their data.", flush=True)
    position = state.position + (bad - state.step) * train.batch_size
    skipped = Skipped(total=newest.skipped.total)
    return replace(newest, position=position, skipped=skipped, rollbacks=rollbacks)


def _summary(config: RunConfig, folder: Path, steps: int) -> RunSummary:
    lines = read_metrics(folder)
    losses = [
        line["train/loss"] for line in lines if "train/loss" in line and line["step"] <= steps
    ]
    return RunSummary(
        folder=folder,
        steps=steps,
        tokens=steps * config.train.batch_size * config.data.sequence_length,
        loss=losses[-1] if losses else math.nan,
        curve=validation_curve(lines),
    )
