"""Progressive transfer: models from small to large, each the helper of the next once trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.experimental.multihost_utils import sync_global_devices

from clp_jax.arguments import checked
from clp_jax.before import MODEL, TRANSFER, check_chain
from clp_jax.chain_config import ChainConfig, ChainModelSection
from clp_jax.checkpoint.fingerprint import model_fingerprint
from clp_jax.checkpoint.hub import load_tokenizer, model_files, read_config, tokenizer_hash
from clp_jax.checkpoint.orbax import latest_step
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.config import DataSection, ModelSection, RunConfig, TrainSection
from clp_jax.convert import convert_checkpoint
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import read_json, write_json
from clp_jax.mesh import decided_by_first, make_mesh, start_distributed
from clp_jax.models import (
    Decoder,
    DecoderConfig,
    abstract_model,
    abstract_parameters,
    read_decoder_config,
)
from clp_jax.train.auto_mesh import run_mesh
from clp_jax.train.inputs import check_sizes, open_corpora
from clp_jax.train.loop import train_model
from clp_jax.train.optimizer import make_optimizer
from clp_jax.train.run_folder import FREE, find_run, flat_settings
from clp_jax.transfer.config import VECTORS
from clp_jax.transfer.external_vectors import read_vectors, vectors_checksum
from clp_jax.transfer.models import check_readable_alone, open_source
from clp_jax.transfer.report import summarize, text_hash
from clp_jax.transfer.stage import transfer_model
from clp_jax.transfer.text import draw_text

RUN = "run"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Stage:
    """One model of a chain: its inputs and its progress.

    Attributes:
        folder: its folder, with ``transfer``, ``run``, ``model`` and ``settings.json`` in it.
        source: the model that provides its layers.
        helper: the model that provides its vocabulary: the one before it.
        run: the configuration of its training run.
        settings: everything its weights depend on, the settings of earlier models included.
        decoder: its architecture.
        parameters: number of its parameters.
        transferred: whether its transfer is done.
        step: the step of its newest checkpoint; 0 without one.
        done: whether the trained model is written.
    """

    folder: Path
    source: str
    helper: str
    run: RunConfig
    settings: dict[str, Any]
    decoder: DecoderConfig
    parameters: int
    transferred: bool
    step: int
    done: bool


@checked
def run_chain(config: ChainConfig, *, dry_run: bool = False) -> None:
    """Make the models of a chain, each from its source with the one before it as the helper.

    ``OUT/NAME`` gets the transferred model in ``transfer``, the training run in ``run`` and the
    trained model, a Hugging Face folder, in ``model``. Finished stages are skipped, and an
    interrupted training run resumes from its newest checkpoint; the models are the same as without
    the interruption. Once ``model`` is written, the other two folders may be removed.

    The table of all stages is printed first. In a run of several processes all of them call this
    function, and ``out`` is on a disk they share; the first process computes the transfers.

    Args:
        config: The configuration.
        dry_run: Print the table and do nothing else.

    Raises:
        UserError: a setting, a source, the helper or a corpus is not valid, or a finished stage had
            other settings; all of this is checked before any work starts.
    """
    start_distributed()
    stages = plan_chain(config)
    _report(render_plan(stages))
    if dry_run:
        return
    sync_global_devices("every process has the same plan")
    for stage in stages:
        if not stage.done:
            _run_stage(stage, config.transfer.given)


def plan_chain(config: ChainConfig) -> list[Stage]:
    """Check everything a chain needs except weights, and find out which stages are done.

    Raises:
        UserError: see `run_chain`.
    """
    check_chain(config)
    for name in (config.helper, *(section.source for section in config.models)):
        check_readable_alone(name)
    owner = config.transfer.tokenizer or config.helper
    tokenizer = load_tokenizer(owner)
    rows, hash_ = tokenizer.rows, tokenizer_hash(tokenizer)
    stages: list[Stage] = []
    found = decided_by_first(partial(_settings, config))
    for section, settings in zip(config.models, found, strict=True):
        folder = Path(config.out) / section.name
        run = _run_config(config, section)
        _refuse_other_settings(folder, settings)
        done, transferred, step = decided_by_first(partial(_progress, folder))
        origin = folder / MODEL if done else folder / TRANSFER if transferred else section.source
        values = read_config(model_files(origin))
        if origin == section.source:
            values["vocab_size"] = rows
            # A plan fetches no weights from the hub and reads none of a run.
            if Path(origin).is_dir() and not is_run_folder(origin):
                source = open_source(origin)
                read_vectors(config.transfer, source.tokenizer, tokenizer, text=())
        model = abstract_model(read_decoder_config(values))
        if not done:
            _check_training(run, model, hash_, owner)
        stages.append(
            Stage(
                folder=folder,
                source=section.source,
                helper=str(stages[-1].folder / MODEL) if stages else config.helper,
                run=run,
                settings=settings,
                decoder=model.config,
                parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))),
                transferred=transferred or step > 0 or done,
                step=step,
                done=done,
            )
        )
    return stages


def render_plan(stages: Sequence[Stage]) -> str:
    """The models of a chain as a table: parameters, state of each stage, tokens to be seen."""
    rows = []
    for stage in stages:
        steps = stage.run.train.steps
        left = 0 if stage.done else steps - stage.step
        resumed = f"to resume from step {stage.step:,} of {steps:,}"
        rows.append(
            (
                stage.folder.name,
                f"{stage.parameters:,}",
                _state(stage.transferred),
                resumed if left and stage.step else _state(not left),
                f"{left * stage.run.train.batch_size * stage.run.data.sequence_length:,}",
                _state(stage.done),
            )
        )
    return markdown_table(
        ("model", "parameters", "transfer", "training", "tokens to be seen", "export"), rows
    )


def _run_stage(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Run the remaining stages of one model; its settings are written before anything else."""
    name = stage.folder.name
    if not stage.transferred:
        _report(f"{name}: transfer from {stage.source} with the helper {stage.helper}")
        if jax.process_index() == 0:
            write_json(stage.folder / SETTINGS, stage.settings)
            out = stage.folder / TRANSFER
            mesh = make_mesh(devices=jax.local_devices())
            manifest = transfer_model(stage.source, stage.helper, out, **arguments, mesh=mesh)
            _report(summarize(manifest, str(out)))
        sync_global_devices(f"{name} is transferred")
    # A run with all its steps done may still lack its final files, so it is resumed as well.
    _report(f"{name}: training")
    train_model(stage.run, resume=True)
    _report(f"{name}: export")
    mesh = run_mesh(stage.run, stage.decoder)
    convert_checkpoint(stage.folder / RUN, stage.folder / MODEL, "hf", mesh=mesh)
    sync_global_devices(f"{name} is exported")


def _run_config(config: ChainConfig, section: ChainModelSection) -> RunConfig:
    folder = Path(config.out) / section.name
    return RunConfig(
        model=ModelSection(path=str(folder / TRANSFER), dropout=section.dropout),
        data=section.data or config.data,
        mesh=section.mesh,
        optimizer=section.optimizer,
        train=TrainSection(out=str(folder / RUN), **section.train.model_dump()),
    )


def _check_training(run: RunConfig, model: Decoder, hash_: str, owner: str) -> None:
    """Check a training run from the shapes of its model, which need not exist yet.

    Raises:
        UserError: model, mesh, optimizer, run folder and corpora do not fit together, or the
            corpora were made with another tokenizer than the owner's, whose hash is given.
    """
    find_run(run, Path(run.train.out), resume=True)
    make_optimizer(run.optimizer, run.train.steps)
    mesh = run_mesh(run, model.config)
    check_sizes(run, model.config, mesh)
    abstract_parameters(model, mesh)
    open_corpora(run.data, hash_, owner)


def _settings(config: ChainConfig) -> list[dict[str, Any]]:
    """For each model, all settings that its weights depend on, those of earlier models included.

    Inputs are known by what they hold, so that they can move. Those that no model needs any more
    may be gone: then they are taken to be what they were.

    Raises:
        UserError: an input that is needed is missing or damaged.
    """
    folders = [Path(config.out) / section.name for section in config.models]
    begun = [any(_progress(folder)[:2]) for folder in folders]
    settings = _named(TRANSFER, config.transfer.given) | {
        key: _held(read, folders[0], key, needed=not all(begun))
        for key, read in _transfer_inputs(config).items()
    }
    found = []
    for section, folder, transferred in zip(config.models, folders, begun, strict=True):
        run, trained = _run_config(config, section), (folder / MODEL).exists()
        inputs: dict[str, tuple[Callable[[], Any], bool]] = {
            "source": (partial(model_fingerprint, section.source), transferred),
            "data.train": (partial(_fingerprints, run.data), trained),
            "data.validation": (partial(_heldout_fingerprints, run.data), trained),
        }
        own = {"dropout": section.dropout} | {
            key: value
            for key, value in flat_settings(run).items()
            if key not in FREE and not key.startswith("model.")  # The chain sets these itself.
        }
        own |= {
            key: _held(read, folder, f"{section.name}.{key}", needed=not done)
            for key, (read, done) in inputs.items()
        }
        settings = settings | _named(section.name, own)
        found.append(settings)
    return found


def _transfer_inputs(config: ChainConfig) -> dict[str, Callable[[], Any]]:
    """What reads the inputs that all transfers share, by the name of the setting."""
    section = config.transfer
    readers: dict[str, Callable[[Any], Any]] = {
        "tokenizer": lambda owner: tokenizer_hash(load_tokenizer(owner)),
        "data": lambda data: text_hash(draw_text(data, section.text_field, section.seed).documents),
        **dict.fromkeys(VECTORS, vectors_checksum),
    }
    given = {key: value for key, value in section.given.items() if key in readers}
    inputs = {key: partial(readers[key], value) for key, value in given.items()}
    return {"helper": partial(model_fingerprint, config.helper), **_named(TRANSFER, inputs)}


def _held(read: Callable[[], Any], folder: Path, key: str, *, needed: bool) -> Any:
    """What an input holds; what it held when ``folder`` was begun, if it is gone and not needed."""
    try:
        return read()
    except UserError:
        if needed:
            raise
        return read_json(folder / SETTINGS).get(key)


def _fingerprints(section: DataSection) -> list[dict[str, Any]]:
    return [
        {"fingerprint": _fingerprint(part.path), "weight": part.weight} for part in section.train
    ]


def _heldout_fingerprints(section: DataSection) -> dict[str, str] | str | None:
    """By the names of the sets; that of the set itself if it has no name."""
    found = {name: _fingerprint(corpus) for name, corpus in section.validation.items()}
    return found[""] if [*found] == [""] else found or None


def _fingerprint(corpus: str) -> str:
    return Corpus.open(corpus).fingerprint


def _refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make sure that a model that was started has the current settings.

    Raises:
        UserError: it has not; the message names the settings that differ.
    """
    if not any((folder / stage).exists() for stage in (TRANSFER, RUN, MODEL)):
        return
    if not (folder / SETTINGS).exists():
        raise UserError(
            f"{folder} is not part of a chain ({SETTINGS} is missing): use another out."
        )
    before = read_json(folder / SETTINGS)
    changes = [
        f"{key} was {before.get(key)} and is {settings.get(key)}"
        for key in {**before, **settings}
        if before.get(key) != settings.get(key)
    ]
    if changes:
        more = f"; and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise UserError(
            f"{folder} was made with other settings: {'; '.join(changes[:5])}{more}. "
            "Restore them, or remove the folder to make the model again."
        )


def _progress(folder: Path) -> tuple[bool, bool, int]:
    """Whether a model is written, whether it is transferred, and its newest checkpoint."""
    done, transferred = ((folder / stage).exists() for stage in (MODEL, TRANSFER))
    return done, transferred, latest_step(folder / RUN) or 0


def _named(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in values.items()}


def _state(done: bool) -> str:
    return "done" if done else "to do"


def _report(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
