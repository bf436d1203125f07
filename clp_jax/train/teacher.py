"""The source of a transfer as the teacher of the new embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int32, PyTree

from clp_jax.checkpoint.hf import load_parts
from clp_jax.checkpoint.hub import load_tokenizer, model_files, read_config
from clp_jax.config import RunConfig
from clp_jax.data.corpus.batches import Batch
from clp_jax.errors import UserError
from clp_jax.mesh import to_host
from clp_jax.models import (
    Decoder,
    DecoderConfig,
    abstract_model,
    abstract_parameters,
    read_decoder_config,
)
from clp_jax.tokenizer import Tokenizer
from clp_jax.train.optimizer import trainable
from clp_jax.vocabulary.align import NONE, Aligner

SHARED = "final_norm"
"""A part of every model that is small and differs between any two trainings."""
OWN = (
    "vocab_size",
    "embedding_dropout",
    "attention_dropout",
    "residual_dropout",
    "initializer_range",
)
"""Where the configurations of the two models may differ; the source reads without dropout."""


@dataclass(frozen=True)
class Teacher:
    """The source model, which has the layers of the new model and embeddings of its own.

    Attributes:
        config: the run's configuration.
        decoder: the source's configuration.
        tokenizer: the source's tokenizer.
    """

    config: RunConfig
    decoder: DecoderConfig
    tokenizer: Tokenizer

    @property
    def length(self) -> int:
        """The source's tokens per sequence."""
        return self.config.teacher.sequence_length or 2 * self.config.data.sequence_length

    @property
    def layer(self) -> int:
        """The layer after which hidden states are compared, counted from 1."""
        return self.config.teacher.layer or self.decoder.num_layers

    @property
    def layers(self) -> tuple[set[int], set[int]]:
        """The layers after which the loss needs the hidden states of model and source."""
        section, final = self.config.teacher, {self.decoder.num_layers}
        compared = {self.layer} if section.hidden_states else set()
        return (
            compared | (final if self.config.predicts else set()),
            compared | (final if section.likelihoods else set()),
        )

    @cached_property
    def abstract(self) -> Decoder:
        """The source without its parameters."""
        return abstract_model(self.decoder, dtype=jnp.dtype(self.config.train.dtype))

    @property
    def graphdef(self) -> nnx.GraphDef:
        """The structure of the source."""
        return nnx.graphdef(self.abstract)

    def shapes(self, mesh: Mesh) -> dict[str, PyTree[jax.ShapeDtypeStruct]]:
        """The parameters that it does not share with the model."""
        return trainable(abstract_parameters(self.abstract, mesh), self.config.optimizer)

    def embeddings(self, params: Mapping[str, PyTree], mesh: Mesh) -> dict[str, PyTree[Array]]:
        """The values of `shapes`, float32.

        Args:
            params: the parameters of the model.
            mesh: where they go.

        Raises:
            UserError: the model has other layers than the source.
        """
        section = self.config.teacher
        assert section.path is not None
        own = {*self.shapes(mesh), SHARED}
        loaded = load_parts(
            section.path, own, mesh=mesh, dtype=jnp.float32, revision=section.revision
        )
        pairs = zip(
            jax.tree.leaves(loaded.pop(SHARED)), jax.tree.leaves(params[SHARED]), strict=True
        )
        if not all(np.array_equal(to_host(a), to_host(b)) for a, b in pairs):
            raise UserError(
                f"{self.config.model.path} does not have the layers of {section.path}: give the "
                "source of its transfer as teacher.path."
            )
        return loaded


def open_teacher(config: RunConfig, decoder: DecoderConfig) -> Teacher | None:
    """The teacher of a run, if it has one, with its configuration and tokenizer.

    Args:
        config: the run's configuration.
        decoder: the configuration of the model.

    Raises:
        UserError: the source is not valid, or differs from the model in more than the vocabulary.
    """
    section = config.teacher
    if section.path is None:
        return None
    files = model_files(section.path, section.revision)
    found = read_decoder_config(read_config(files), files / "config.json")
    if replace(found, **{key: getattr(decoder, key) for key in OWN}) != decoder:
        raise UserError(
            f"{section.path} and {config.model.path} differ in more than the vocabulary: give the "
            "source of the transfer as teacher.path."
        )
    teacher = Teacher(config, found, load_tokenizer(files))
    if teacher.layer > found.num_layers:
        raise UserError(
            f"teacher.layer is {teacher.layer}, but {section.path} has {found.num_layers} layers: "
            "choose one of them, or leave it empty for the last."
        )
    teacher.tokenizer.check_rows(found.vocab_size, f"The model {section.path}")
    if found.max_positions is not None and teacher.length > found.max_positions:
        raise UserError(
            f"teacher.sequence_length is {teacher.length}, but the source has "
            f"{found.max_positions} positions: choose at most {found.max_positions}, or a smaller "
            "data.sequence_length."
        )
    return teacher


class Lessons:
    """Adds to a batch the source's tokens and the positions that both models share."""

    def __init__(self, teacher: Teacher, student: Tokenizer) -> None:
        self._align = Aligner(student, teacher.tokenizer, teacher.length)

    def __call__(self, batch: Batch) -> dict[str, Int32[np.ndarray, "rows columns"]]:
        """``source_tokens`` and ``positions``; targets that do not count have no position."""
        tokens, positions = self._align(batch["tokens"])
        positions[:, 1:][~batch["mask"]] = NONE
        return {"source_tokens": tokens, "positions": positions}
