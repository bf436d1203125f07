"""The inputs of a run, opened and checked before anything is computed or written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int

from clp_jax.checkpoint.hub import (
    ORIGINS,
    load_tokenizer,
    model_files,
    read_config,
    tokenizer_hash,
)
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.config import DataSection, LoraSection, ModelSection, RunConfig
from clp_jax.data.corpus.batches import TrainingBatches
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import public_name
from clp_jax.mesh import batch_divisor
from clp_jax.models import DecoderConfig, read_decoder_config
from clp_jax.train.auto_mesh import run_mesh
from clp_jax.train.rows import COPIED, read_origins, rows_from
from clp_jax.train.teacher import Teacher, open_teacher

DROPOUT_RATES = (
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "hidden_dropout",
    "attention_dropout",
)


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run, checked against each other."""

    files: Path
    """Folder with the model's configuration and tokenizer."""
    decoder: DecoderConfig
    mesh: Mesh
    corpora: tuple[Corpus, ...]
    validation: Mapping[str, Corpus]
    """The held-out sets by name; ``""`` for one without a name."""
    teacher: Teacher | None
    origins: Mapping[str, Int[np.ndarray, " ids"]]
    """The ids of the rows by origin, see `read_origins`."""

    @property
    def copied(self) -> Bool[np.ndarray, " vocab"]:
        """The rows that the transfer took from its source as they were."""
        return rows_from(self.origins, self.decoder.vocab_size, *COPIED)

    @property
    def made(self) -> Bool[np.ndarray, " vocab"]:
        """The rows that the transfer made for tokens."""
        return ~rows_from(self.origins, self.decoder.vocab_size, *COPIED, "padding")


def open_inputs(config: RunConfig, run: Path | None = None) -> Inputs:
    """Open everything the configuration names.

    Args:
        config: The configuration.
        run: Folder of an existing run, which provides the model's configuration and tokenizer.

    Raises:
        UserError: an input is missing or damaged, or does not fit the others.
    """
    section = config.model
    files = run / MODEL if run else model_files(section.path, section.revision)
    decoder = read_decoder(files, section, config.lora)
    mesh = run_mesh(config, decoder)
    check_sizes(config, decoder, mesh)
    hash_ = _tokenizer_hash(files, decoder)
    corpora, validation = open_corpora(config.data, hash_, section.path)
    teacher = open_teacher(config, decoder)
    rows = decoder.vocab_size
    origins = {"all": np.arange(rows)} if section.init == "random" else read_origins(files, rows)
    inputs = Inputs(files, decoder, mesh, corpora, validation, teacher, origins)
    if config.optimizer.new_rows_only and not inputs.copied.any():
        raise UserError(
            f"optimizer.new_rows_only keeps the rows that a transfer copied, but {section.path} "
            f"has no {ORIGINS} that names such rows: turn it off, or give the transfer's model."
        )
    return inputs


def read_decoder(
    files: Path, section: ModelSection, lora: LoraSection | None = None
) -> DecoderConfig:
    """The configuration of the model in a folder, with the run's dropout and adapters.

    Raises:
        UserError: the architecture or one of its settings is not supported.
    """
    values = read_config(files)
    if section.dropout is not None:
        values |= dict.fromkeys(DROPOUT_RATES, section.dropout)
    decoder = read_decoder_config(values, files / "config.json")
    return replace(decoder, lora=lora if lora and lora.r else None)


def check_sizes(config: RunConfig, decoder: DecoderConfig, mesh: Mesh) -> None:
    """Make sure that a sequence fits the model and the mesh, and that a batch fits the mesh.

    Raises:
        UserError: one of them does not.
    """
    length, positions = config.data.sequence_length, decoder.max_positions
    if positions is not None and length > positions:
        raise UserError(
            f"data.sequence_length is {length}, but the model has {positions} positions: "
            f"choose at most {positions}."
        )
    if length % mesh.shape["sequence"]:
        raise UserError(
            f"data.sequence_length is {length}, which must be a multiple of mesh.sequence, "
            f"{mesh.shape['sequence']}."
        )
    microbatch, divisor = (
        config.train.batch_size // config.train.gradient_accumulation_steps,
        batch_divisor(mesh),
    )
    if microbatch % divisor:
        raise UserError(
            f"train.batch_size / train.gradient_accumulation_steps is {microbatch}, which must be "
            f"a multiple of the {divisor} devices of mesh.data * mesh.fsdp."
        )


def _tokenizer_hash(files: Path, decoder: DecoderConfig) -> str:
    tokenizer = load_tokenizer(files)
    tokenizer.check_rows(decoder.vocab_size, f"The model {files}")
    return tokenizer_hash(tokenizer)


def open_corpora(
    section: DataSection, expected_hash: str, model: str
) -> tuple[tuple[Corpus, ...], dict[str, Corpus]]:
    """Open the training and the held-out corpora, made with the tokenizer of ``model``.

    Raises:
        UserError: one is missing or damaged, was made with another tokenizer, or is too small to
            train on.
    """
    corpora = tuple(open_corpus(part.path, expected_hash, model) for part in section.train)
    for part, corpus in zip(section.train, corpora, strict=True):
        if corpus.answers is None and len(corpus) <= section.sequence_length:
            raise UserError(
                f"{part.path} has {len(corpus):,} tokens, too few for one sequence of "
                f"{section.sequence_length:,}: add text, or choose a smaller data.sequence_length."
            )
    heldout = section.validation.items()
    return corpora, {name: open_corpus(path, expected_hash, model) for name, path in heldout}


def open_corpus(folder: str, expected_hash: str, model: str) -> Corpus:
    """Open a corpus that was made with the tokenizer of ``model``, whose hash is given.

    Raises:
        UserError: it is missing or damaged, or was made with another tokenizer.
    """
    corpus = Corpus.open(folder)
    if corpus.tokenizer_hash != expected_hash:
        raise UserError(
            f"{folder} was made with another tokenizer than that of {model}: "
            f"prepare it again with `clp-jax prepare --tokenizer {model}`."
        )
    return corpus


def corpora_table(config: RunConfig, corpora: Sequence[Corpus], batches: TrainingBatches) -> str:
    """A table with one row per corpus: its tokens, its share of the sequences and its epochs.

    Args:
        config: The run's configuration, which names the corpora.
        corpora: The corpora themselves.
        batches: The batches made from them.
    """
    names = [public_name(part.path) for part in config.data.train]
    tokens = [len(corpus) for corpus in corpora]
    epochs = batches.epochs(config.train.steps * config.train.batch_size)
    return markdown_table(
        ("corpus", "tokens", "share of sequences", "epochs"),
        [
            (name, f"{count:,}", f"{share:.1%}", f"{times:,.2f}")
            for name, count, share, times in zip(
                names, tokens, batches.shares(), epochs, strict=True
            )
        ],
    )
