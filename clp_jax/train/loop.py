"""A training run from the first check to the last checkpoint; it reads top to bottom."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import Mesh
from jaxtyping import PyTree

from clp_jax.checkpoint.hf import load_model, model_files
from clp_jax.checkpoint.hub import load_tokenizer, read_config
from clp_jax.checkpoint.orbax import RunCheckpoints, latest_step
from clp_jax.config import RunConfig
from clp_jax.data.batches import TrainingBatches
from clp_jax.data.store import Corpus
from clp_jax.data.tokens import tokenizer_hash
from clp_jax.errors import UserError
from clp_jax.evaluate.perplexity import measure_perplexity
from clp_jax.evaluate.plots import plot_perplexity
from clp_jax.mesh import batch_divisor, make_mesh, start_distributed, to_global
from clp_jax.models import DecoderConfig, abstract_model, initialize, read_decoder_config
from clp_jax.train.folder import MODEL, create_run, find_run
from clp_jax.train.metrics import RunLog, read_metrics
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.step import (
    abstract_optimizer,
    abstract_parameters,
    initialize_optimizer,
    make_train_step,
)

CURVE = "curve.png"
DROPOUT_RATES = (
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "hidden_dropout",
    "attention_dropout",
)
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
    """Train a model as the configuration says; `clp_jax.load_model` reads the run folder.

    In a run of several processes all of them call it, and ``train.out`` is on a disk they share.

    Args:
        config: The configuration.
        resume: Continue the run in ``train.out`` from its newest checkpoint, exactly as if it had
            not been interrupted; start it where there is none.

    Raises:
        UserError: something of the model, the data, the mesh or the run folder is not as it should
            be, or the loss stops being a number.
    """
    start_distributed()

    # Everything is checked before anything is computed or written.
    run, train = Path(config.train.out), config.train
    found = find_run(config, resume=resume)
    files = run / MODEL if found else model_files(config.model.path, config.model.revision)
    mesh = make_mesh(**config.mesh.model_dump())
    decoder = _decoder_config(config, files)
    corpus, validation_corpus = _open_corpora(config, files, decoder)
    _check_sizes(config, decoder, mesh)
    optimizer = make_optimizer(config.optimizer, train.steps)
    batches = TrainingBatches(
        corpus,
        sequence_length=config.data.sequence_length,
        batch_size=train.batch_size,
        seed=train.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )

    # The step is compiled from shapes alone: what does not fit fails before a weight is read.
    model = abstract_model(decoder, dtype=jnp.dtype(train.dtype))
    graphdef, shapes = nnx.graphdef(model), abstract_parameters(model, mesh)
    train_step = make_train_step(graphdef, shapes, optimizer, mesh=mesh, config=config)

    # A run starts from a model, or goes on from its own newest checkpoint.
    start = latest_step(run) or 0
    if not start:
        params = _first_parameters(config, decoder, mesh)
        optimizer_state = initialize_optimizer(optimizer, params, mesh)
    if not found:
        create_run(config, files)

    with (
        RunCheckpoints(run, keep=train.keep_checkpoints) as checkpoints,
        RunLog(
            run,
            start=start,
            steps=train.steps,
            tokens_per_step=train.batch_size * config.data.sequence_length,
            flops_per_token=model.flops_per_token(config.data.sequence_length),
        ) as log,
    ):
        position = 0
        if start:
            params, optimizer_state, data = checkpoints.restore(
                start, shapes, abstract_optimizer(optimizer, shapes, mesh)
            )
            position = batches.position(data)

        def validate(step: int) -> None:
            if validation_corpus is None:
                return
            perplexity = measure_perplexity(
                nnx.merge(graphdef, params),
                validation_corpus,
                sequence_length=config.data.sequence_length,
                batch_size=train.batch_size // train.accumulation,
                mesh=mesh,
            )
            log.validation(step, {name: getattr(perplexity, name) for name in VALIDATION_METRICS})
            if jax.process_index() == 0:
                title = f"{run.name}: perplexity per token"
                plot_perplexity({run.name: validation_curve(run)}, run / CURVE, title)

        if not start:
            validate(0)
        for step, batch in zip(
            range(start + 1, train.steps + 1), batches.starting_at(position), strict=False
        ):
            rows = {key: to_global(batch[key], mesh) for key in ("tokens", "mask")}
            params, optimizer_state, metrics = train_step(
                params, optimizer_state, np.int32(step - 1), rows
            )
            last = step == train.steps
            if last or step % train.log_every == 0:
                _check_finite(step, metrics["loss"])
                log.training(step, metrics)
            if last or step % train.validate_every == 0:
                validate(step)
            if last or step % train.checkpoint_every == 0 or checkpoints.preempted(step):
                data = batches.state(step * train.batch_size)
                checkpoints.save(step, params, optimizer_state, data)
                log.start_clock(step)
            log.advance()

    sync_global_devices("the run is complete")
    lines = read_metrics(run)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    return RunSummary(
        run, lines[-1]["step"], lines[-1]["tokens"], losses[-1], validation_curve(run)
    )


def validation_curve(run: str | Path) -> tuple[tuple[int, float], ...]:
    """Tokens and token perplexity of each validation of a run."""
    key = "validation/token_perplexity"
    return tuple((line["tokens"], line[key]) for line in read_metrics(run) if key in line)


def _decoder_config(config: RunConfig, files: Path) -> DecoderConfig:
    values = read_config(files)
    if config.model.dropout is not None:
        values |= dict.fromkeys(DROPOUT_RATES, config.model.dropout)
    return read_decoder_config(values)


def _first_parameters(config: RunConfig, decoder: DecoderConfig, mesh: Mesh) -> PyTree:
    """The float32 parameters that a new run starts with, in their places on the mesh."""
    if config.model.init == "random":
        model = initialize(decoder, seed=config.train.seed, mesh=mesh)
    else:
        model = load_model(
            config.model.path, mesh=mesh, dtype=jnp.float32, revision=config.model.revision
        )
    return nnx.to_pure_dict(nnx.state(model))


def _open_corpora(
    config: RunConfig, files: Path, decoder: DecoderConfig
) -> tuple[Corpus, Corpus | None]:
    """The training and the validation corpus, made with the model's own tokenizer."""
    tokenizer = load_tokenizer(files)
    ids = max(tokenizer.get_vocab().values()) + 1
    if ids > decoder.vocab_size:
        raise UserError(
            f"{files}: the tokenizer has {ids} ids, but config.json says vocab_size "
            f"{decoder.vocab_size}: they do not belong together."
        )
    expected = tokenizer_hash(tokenizer)

    def opened(folder: str) -> Corpus:
        corpus = Corpus.open(folder)
        if corpus.tokenizer_hash != expected:
            raise UserError(
                f"{folder} was made with another tokenizer than that of {config.model.path}: "
                f"write it again with `clp-jax prepare --tokenizer {config.model.path}`."
            )
        return corpus

    validation = config.data.validation
    return opened(config.data.train), opened(validation) if validation else None


def _check_sizes(config: RunConfig, decoder: DecoderConfig, mesh: Mesh) -> None:
    length, positions = config.data.sequence_length, decoder.max_positions
    if positions is not None and length > positions:
        raise UserError(
            f"data.sequence_length is {length}, but the model has {positions} positions: "
            f"choose at most {positions}."
        )
    part, divisor = config.train.batch_size // config.train.accumulation, batch_divisor(mesh)
    if part % divisor:
        raise UserError(
            f"train.batch_size / train.accumulation is {part}, which must be a multiple of the "
            f"{divisor} devices of mesh.data * mesh.fsdp."
        )


def _check_finite(step: int, loss: jax.Array) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"The loss is {loss} at step {step}: lower optimizer.learning_rate or lengthen "
            "optimizer.warmup_steps; the checkpoints before it are kept."
        )
