"""Decoders in Flax NNX, a file for each family, with its Hugging Face weight table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import PyTree

from clp_jax.errors import UserError
from clp_jax.mesh import sharding_for
from clp_jax.models import gemma, llama
from clp_jax.models.bloom import Bloom, BloomConfig
from clp_jax.models.configuration import refuse_kinds
from clp_jax.models.decoder import Cache, Decoder, DecoderConfig
from clp_jax.models.gemma import Gemma, GemmaConfig
from clp_jax.models.gpt2 import GPT2, GPT2Config
from clp_jax.models.llama import Llama, LlamaConfig
from clp_jax.models.lora import adapter_weights, adapters
from clp_jax.models.weights import Weight

__all__ = [
    "GPT2",
    "HEAD",
    "Bloom",
    "BloomConfig",
    "Cache",
    "Decoder",
    "DecoderConfig",
    "GPT2Config",
    "Gemma",
    "GemmaConfig",
    "Llama",
    "LlamaConfig",
    "Weight",
    "abstract_model",
    "abstract_parameters",
    "decoder_class",
    "initialize",
    "new_adapters",
    "parameter_path",
    "parameter_shardings",
    "read_decoder_config",
    "weight_table",
]

ARCHITECTURES: Mapping[str, tuple[type[Decoder], Any]] = {
    "gpt2": (GPT2, GPT2Config),
    "bloom": (Bloom, BloomConfig),
    **dict.fromkeys(llama.KINDS, (Llama, LlamaConfig)),
    **dict.fromkeys(gemma.KINDS, (Gemma, GemmaConfig)),
}
"""Module and configuration class by ``model_type``."""

HEAD = Weight("head.embedding", "lm_head.weight", "vocab embed -> vocab embed")


def read_decoder_config(
    values: Mapping[str, Any], file: str | Path = "config.json"
) -> DecoderConfig:
    """The configuration of the architecture that a Hugging Face ``config.json`` names.

    Args:
        values: The contents of the file.
        file: Its name, for the error.

    Raises:
        UserError: the architecture or one of its settings is not supported, or a value is out of
            range.
    """
    kind = str(values.get("model_type"))
    try:
        refuse_kinds(values)
        if kind not in ARCHITECTURES:
            raise UserError(
                f"model_type {kind} is not supported; choose one of {', '.join(ARCHITECTURES)}."
            )
        return ARCHITECTURES[kind][1].from_hf(values)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def decoder_class(config: DecoderConfig) -> type[Decoder]:
    """The module class for a configuration."""
    return next(module for module, kind in ARCHITECTURES.values() if isinstance(config, kind))


def weight_table(config: DecoderConfig) -> tuple[Weight, ...]:
    """One row for each parameter of a model with this configuration."""
    weights = decoder_class(config).weights(config)
    return (
        *weights,
        *(() if config.tied else (HEAD,)),
        *(() if config.lora is None else adapter_weights(weights, config.lora)),
    )


def abstract_model(config: DecoderConfig, *, dtype: DTypeLike = jnp.float32) -> Decoder:
    """The model with shapes instead of arrays; ``dtype`` is that of the computation."""
    module = decoder_class(config)
    return nnx.eval_shape(lambda: module(config, dtype=dtype, rngs=nnx.Rngs(0)))


def parameter_path(path: tuple[Any, ...]) -> str:
    """A JAX key path as the dotted path of the weight tables."""
    return ".".join(str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey))


def parameter_shardings(model: Decoder, mesh: Mesh) -> nnx.State:
    """A `NamedSharding` for each parameter of a model, abstract or not.

    Raises:
        UserError: the mesh does not divide a dimension.
    """
    axes = {weight.path: weight.axes for weight in weight_table(model.config)}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: sharding_for(mesh, axes[parameter_path(path)], leaf.shape),
        nnx.state(model),
    )


def abstract_parameters(model: Decoder, mesh: Mesh) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and shardings of a model's parameters (the model may be abstract), a nested dict.

    Raises:
        UserError: the mesh does not divide a dimension.
    """
    return nnx.to_pure_dict(
        jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            nnx.state(model, nnx.Param),
            parameter_shardings(model, mesh),
        )
    )


def initialize(
    config: DecoderConfig, *, seed: int, mesh: Mesh, dtype: DTypeLike = jnp.float32
) -> Decoder:
    """A model with new float32 weights, created on the mesh.

    The weights depend on the seed, not on the mesh; ``dtype`` is that of the computation.
    """
    module = decoder_class(config)
    graphdef, params = nnx.split(abstract_model(config, dtype=dtype))

    def create() -> nnx.State:
        return nnx.state(module(config, dtype=dtype, rngs=nnx.Rngs(seed)), nnx.Param)

    shardings = parameter_shardings(nnx.merge(graphdef, params), mesh)
    return nnx.merge(graphdef, jax.jit(create, out_shardings=shardings)())


def new_adapters(config: DecoderConfig, *, seed: int, mesh: Mesh) -> PyTree:
    """New adapters as a nested dict of a model's parameters, without the rest of the model.

    They are created on the mesh and do not depend on it.
    """
    module = decoder_class(config)
    shardings = nnx.to_pure_dict(parameter_shardings(abstract_model(config), mesh))

    def create() -> PyTree:
        params = nnx.state(module(config, rngs=nnx.Rngs(seed)), nnx.Param)
        return adapters(nnx.to_pure_dict(params))

    return jax.jit(create, out_shardings=adapters(shardings))()
