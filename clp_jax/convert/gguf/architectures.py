"""How llama.cpp names, lays out and configures the models of each architecture."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import transformers
from einops import rearrange
from jaxtyping import Float, Shaped

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.errors import UserError
from clp_jax.models import BloomConfig, DecoderConfig, GemmaConfig, GPT2Config, LlamaConfig
from clp_jax.models.configuration import read_fields
from clp_jax.models.llama import GLOBAL, LOCAL

_TANH_GELU = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")
_SILU = ("silu", "swish")
_TRANSPOSED = {r"c_(attn|proj|fc)\.weight": "i o -> o i"}
_GROUPED = {r"query_key_value\.(weight|bias)": "(heads three dim) ... -> (three heads dim) ..."}
_PAIRED = {r"[qk]_proj\.(weight|bias)": "(heads two half) ... -> (heads half two) ..."}
"""llama.cpp rotates neighbours in Llama's heads, and not elements half a head apart."""
BLOOM_CONTEXT = 2048
"""The length that BLOOM was trained with; its configuration has no limit."""


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp."""

    name: str
    """Value of ``general.architecture``."""
    faults: Callable[[Any, Mapping[str, Any]], Iterator[str]]
    """Settings of a configuration that llama.cpp does not have, from it and its ``config.json``."""
    layouts: Mapping[str, str]
    """einops patterns, checkpoint -> GGUF, by regular expressions for names of tensors."""
    norm_offset: float = 0.0
    """What is added to the factors of norms."""


def _gpt2_faults(config: GPT2Config, values: Mapping[str, Any]) -> Iterator[str]:
    yield from _activation(config, _TANH_GELU)
    if not config.scale_scores:
        yield "scale_attn_weights"
    if config.scale_by_layer:
        yield "scale_attn_by_inverse_layer_idx"


def _bloom_faults(config: BloomConfig, values: Mapping[str, Any]) -> Iterator[str]:
    if config.residual_after_norm:
        yield "apply_residual_connection_post_layernorm"


def _llama_faults(config: LlamaConfig, values: Mapping[str, Any]) -> Iterator[str]:
    yield from _activation(config, _SILU)
    kind = values["model_type"]
    if kind != "llama" and (config.out_bias or config.mlp_bias):
        yield "attention_bias"
    if config.rope.factor != 1:
        yield "rope_type yarn"


def _gemma_faults(config: GemmaConfig, values: Mapping[str, Any]) -> Iterator[str]:
    yield from _activation(config, _TANH_GELU)
    second = values["model_type"] == "gemma2"
    of_27b = config.num_layers == (46 if second else 62)
    width = config.hidden_size // config.num_heads if of_27b else config.head_dim
    if not np.isclose(config.score_scale, width**-0.5):
        yield "query_pre_attn_scalar"
    if config.bias:
        yield "attention_bias"
    if second and (config.score_softcap is None or config.final_softcap is None):
        yield "attn_logit_softcapping or final_logit_softcapping of null"
    if not second and config.final_softcap is not None:
        yield "final_logit_softcapping"
    if second and not config.tied:
        yield "an untied head"
    period = 2 if second else 6
    local = [(layer + 1) % period != 0 for layer in range(config.num_layers)]
    if local != [kind.window is not None for kind in config.layer_kinds]:
        yield "layer_types"


def _activation(config: DecoderConfig, known: tuple[str, ...]) -> Iterator[str]:
    if config.activation not in known:
        yield f"the activation function {config.activation}"


ARCHITECTURES: Mapping[str, Architecture] = {
    "gpt2": Architecture("gpt2", _gpt2_faults, _TRANSPOSED),
    "bloom": Architecture("bloom", _bloom_faults, _GROUPED),
    "llama": Architecture("llama", _llama_faults, _PAIRED),
    "mistral": Architecture("llama", _llama_faults, _PAIRED),
    "qwen2": Architecture("qwen2", _llama_faults, {}),
    "qwen3": Architecture("qwen3", _llama_faults, {}),
    "gemma2": Architecture("gemma2", _gemma_faults, {}, norm_offset=1.0),
    "gemma3_text": Architecture("gemma3", _gemma_faults, {}, norm_offset=1.0),
}
"""By ``model_type``."""


def read_architecture(name: str, config: DecoderConfig, values: Mapping[str, Any]) -> Architecture:
    """The architecture of llama.cpp for a model.

    Args:
        name: The model's name, for the error.
        config: Its configuration.
        values: Contents of its ``config.json``.

    Raises:
        UserError: llama.cpp does not have the architecture or one of its settings.
    """
    kind = values["model_type"]
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{name} is a {kind}, and a GGUF file can be written for {', '.join(ARCHITECTURES)}: "
            "export it with --to hf."
        )
    found = ARCHITECTURES[kind]
    faults = [*found.faults(config, values)]
    if faults:
        raise UserError(
            f"{name} has {', '.join(faults)}, which llama.cpp does not have for {found.name}: "
            "export it with --to hf."
        )
    return found


def add_hyperparameters(
    writer: Any, config: DecoderConfig, values: Mapping[str, Any]
) -> Float[np.ndarray, " half"] | None:
    """Write a model's sizes and settings into a GGUF file.

    Args:
        writer: The `gguf.GGUFWriter`.
        config: The model's configuration.
        values: Contents of its ``config.json``.

    Returns:
        Divisors of the rotary frequencies, if they are scaled one by one.

    Raises:
        UserError: the rotary frequencies are scaled in a way that llama.cpp does not have.
    """
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.mlp_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    if isinstance(config, GPT2Config | BloomConfig):
        writer.add_layer_norm_eps(config.epsilon)
        writer.add_context_length(config.max_positions or BLOOM_CONTEXT)
        return None
    hf: Any = read_fields(transformers.CONFIG_MAPPING[values["model_type"]], values)
    writer.add_layer_norm_rms_eps(config.epsilon)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    if isinstance(config, GemmaConfig):
        _add_gemma(writer, config, hf)
        return None
    windows = [kind.window for kind in config.layer_kinds if kind.window is not None]
    # llama.cpp has no windows in these, and within the shortest they change nothing.
    writer.add_context_length(min([hf.max_position_embeddings, *windows]))
    assert isinstance(config, LlamaConfig)
    base = hf.rope_parameters["rope_theta"]
    writer.add_rope_freq_base(base)
    plain = float(base) ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    divisors = (plain / np.array(config.rope.frequencies)).astype(np.float32)
    if np.allclose(divisors, 1, rtol=1e-5):
        return None
    if values["model_type"] in ("llama", "mistral"):
        return divisors
    _add_linear(writer, hf.rope_parameters, values["model_type"])
    return None


def _add_gemma(writer: Any, config: GemmaConfig, hf: Any) -> None:
    writer.add_context_length(hf.max_position_embeddings)
    writer.add_sliding_window(hf.sliding_window)
    if config.score_softcap is not None:
        writer.add_attn_logit_softcapping(config.score_softcap)
    if config.final_softcap is not None:
        writer.add_final_logit_softcapping(config.final_softcap)
    ropes = hf.rope_parameters
    if hf.model_type == "gemma2":
        writer.add_rope_freq_base(ropes["rope_theta"])
        _add_linear(writer, ropes, hf.model_type)
        return
    if ropes[LOCAL]["rope_theta"] != 10_000 or ropes[LOCAL].get("rope_type") != "default":
        raise UserError(
            "The rotary embeddings of Gemma 3's local layers have another base than 10,000, which "
            "llama.cpp does not have: export the model with --to hf."
        )
    writer.add_rope_freq_base(ropes[GLOBAL]["rope_theta"])
    _add_linear(writer, ropes[GLOBAL], hf.model_type)


def _add_linear(writer: Any, rope: Mapping[str, Any], kind: str) -> None:
    """Write the scaling of rotary frequencies by one factor, if there is any."""
    from gguf import RopeScalingType

    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] not in ("default", "dynamic"):
        raise UserError(
            f"The rope_type {rope['rope_type']} of a {kind} cannot be written to a GGUF file: "
            "export the model with --to hf."
        )


def gguf_tensors(
    architecture: Architecture,
    tensors: Mapping[str, LazyTensor],
    config: DecoderConfig,
    tables: Mapping[str, int],
) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint under llama.cpp's names and in its layouts.

    Args:
        architecture: The architecture.
        tensors: The tensors by their names in the checkpoint.
        config: The model's configuration.
        tables: The number of rows of each table with one row per token; others are cut off.
    """
    from gguf import MODEL_ARCH, get_tensor_name_map

    arch = MODEL_ARCH[architecture.name.upper()]
    names = get_tensor_name_map(arch, config.num_layers)
    sizes = {"three": 3, "two": 2, "dim": config.head_dim, "half": config.head_dim // 2}
    found = {}
    for name, tensor in tensors.items():
        tensor = tensor.head(tables[name]) if name in tables else tensor
        for expression, pattern in architecture.layouts.items():
            if re.search(rf"\.{expression}$", name):
                tensor = _laid_out(tensor, pattern, sizes)
        if architecture.norm_offset and name.endswith("norm.weight"):
            tensor = _added(tensor, architecture.norm_offset)
        known = (
            names.get_name(one, try_suffixes=(".weight", ".bias"))
            for one in (name, name.removeprefix("transformer."))
        )
        theirs = next(filter(None, known))
        found[theirs] = tensor
    return found


def _laid_out(tensor: LazyTensor, pattern: str, sizes: Mapping[str, int]) -> LazyTensor:
    used = {axis: size for axis, size in sizes.items() if re.search(rf"\b{axis}\b", pattern)}

    def load(rows: slice) -> Shaped[np.ndarray, "..."]:
        return rearrange(tensor.read(), pattern, **used)[rows]

    shape = tensor.shape[::-1] if pattern == "i o -> o i" else tensor.shape
    return replace(tensor, shape=shape, load=load)


def _added(tensor: LazyTensor, offset: float) -> LazyTensor:
    """The tensor plus a number, in float32."""
    kind = np.dtype(np.float32)
    return replace(
        tensor, dtype=kind, load=lambda rows: tensor.read()[rows].astype(kind) + kind.type(offset)
    )
