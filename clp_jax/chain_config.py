"""The configuration of `clp-jax chain`, separate from `clp_jax.chain`, which imports JAX."""

from pydantic import Field, field_validator

from clp_jax.config import (
    Configuration,
    DataSection,
    MeshSection,
    OptimizerSection,
    Section,
    TrainingSection,
)
from clp_jax.limits import LocalName, Name, PartialShare
from clp_jax.transfer.config import TransferConfig


class ChainModelSection(Section):
    """One model of a chain."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Name of its folder inside the folder of the chain."""
    source: Name
    """Hugging Face folder or hub id of the model that provides its layers."""
    dropout: PartialShare | None = None
    """Replaces every dropout rate of the source's configuration; empty keeps them."""
    data: DataSection | None = None
    """Its own corpora; empty uses those of the chain."""
    mesh: MeshSection = MeshSection()
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainingSection


class ChainConfig(Configuration):
    """The configuration of `clp-jax chain`: models, each the helper of the next."""

    helper: Name
    """Helper of the first model; all models get its tokenizer, or that of `transfer.tokenizer`."""
    out: LocalName
    """Folder of the chain, with a folder for each model."""
    transfer: TransferConfig = TransferConfig()
    data: DataSection
    models: list[ChainModelSection] = Field(min_length=1)

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: list[ChainModelSection]) -> list[ChainModelSection]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"each name must be different, but they are {', '.join(names)}")
        return models
