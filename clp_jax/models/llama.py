"""Llama and its kin: Mistral, Qwen2, Qwen3, SmolLM3, OLMo2, and models that reuse their classes.

RMSNorm, rotary embeddings, grouped queries and a gated MLP. What differs between them is a field of
`LlamaConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import transformers
from flax import nnx
from jaxtyping import Array, Float, Int

from clp_jax.errors import UserError
from clp_jax.models.configuration import read_fields
from clp_jax.models.decoder import Block, Decoder, DecoderConfig
from clp_jax.models.layers import GatedMLP, RMSNorm
from clp_jax.models.rope import RotaryEmbedding, Rotation
from clp_jax.models.self_attention import GroupedSelfAttention, LayerKind
from clp_jax.models.weights import Weight

ROPE = "rope"

KINDS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2")
"""Each ``model_type``."""
LOCAL, GLOBAL = "sliding_attention", "full_attention"
"""Layers with and without a window, by their names in ``layer_types``."""
ROTARY_BUFFERS = r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
"""Tensors of old checkpoints that are computed from the configuration."""
QkNorm = Literal["head", "width"]
QK_NORMS: Mapping[str, QkNorm] = {"qwen3": "head", "olmo2": "width"}


@dataclass(frozen=True)
class LlamaConfig(DecoderConfig):
    """The configuration of a Llama or one of its kin."""

    rope: RotaryEmbedding
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: QkNorm | None
    """Queries and keys are normalised head by head, over all heads together, or not at all."""
    norm_outputs: bool
    """Attention and MLP are normalised at their outputs instead of their inputs."""

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "LlamaConfig":
        """Read the contents of a Hugging Face ``config.json``.

        Raises:
            UserError: a setting is not supported, or its value is invalid.
        """
        cls.refuse_unsupported(values)
        kind = values["model_type"]
        hf: Any = read_fields(transformers.CONFIG_MAPPING[kind], values)
        rope = read_rope(hf, hf.rope_parameters)
        bias = getattr(hf, "attention_bias", False)
        return cls(
            **shared_fields(hf),
            max_positions=rope.max_positions,
            activation=hf.hidden_act,
            layer_kinds=_layer_kinds(hf),
            rope=rope,
            qkv_bias=kind == "qwen2" or bias,
            out_bias=bias,
            mlp_bias=getattr(hf, "mlp_bias", False),
            qk_norm=QK_NORMS.get(kind),
            norm_outputs=kind == "olmo2",
        )


def shared_fields(hf: Any) -> dict[str, Any]:
    """The fields that the configurations of Llama, its kin and Gemma name alike."""
    return {
        "vocab_size": hf.vocab_size,
        "hidden_size": hf.hidden_size,
        "num_layers": hf.num_hidden_layers,
        "num_heads": hf.num_attention_heads,
        "num_kv_heads": hf.num_key_value_heads,
        "head_dim": _head_dim(hf),
        "mlp_size": hf.intermediate_size,
        "epsilon": hf.rms_norm_eps,
        "tied": hf.tie_word_embeddings,
        "embedding_dropout": 0.0,
        "attention_dropout": hf.attention_dropout or 0.0,
        "residual_dropout": 0.0,
        "initializer_range": hf.initializer_range,
    }


def read_rope(hf: Any, parameters: Mapping[str, Any]) -> RotaryEmbedding:
    """The rotary embedding that a part of ``rope_parameters`` describes.

    Raises:
        UserError: it is not supported, or a value is invalid.
    """
    return RotaryEmbedding.from_hf(
        parameters, head_dim=_head_dim(hf), max_positions=hf.max_position_embeddings
    )


def layer_types(hf: Any) -> list[str]:
    """`LOCAL` or `GLOBAL` for each layer; without ``layer_types``, all have the window, if any.

    Raises:
        UserError: there is another kind of layer, or one has a window that is not given.
    """
    types = getattr(hf, "layer_types", None)
    if not types:
        return [LOCAL] * hf.num_hidden_layers
    if unknown := {*types} - {LOCAL, GLOBAL}:
        raise UserError(f"layer_types {', '.join(sorted(unknown))} is not supported.")
    if LOCAL in types and hf.sliding_window is None:
        raise UserError(f"layer_types has {LOCAL}, but there is no sliding_window, or it is off.")
    return types


def _head_dim(hf: Any) -> int:
    return getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads


def _layer_kinds(hf: Any) -> tuple[LayerKind, ...]:
    """The window of each layer and whether it has rotary embeddings."""
    types = layer_types(hf)
    windows = {GLOBAL: None, LOCAL: getattr(hf, "sliding_window", None)}
    # 1 marks the layers that have rotary embeddings.
    rotated = getattr(hf, "no_rope_layers", None) or [1] * len(types)
    return tuple(
        LayerKind(window=windows[kind], rope=ROPE if has_rope else None)
        for kind, has_rope in zip(types, rotated[: len(types)], strict=True)
    )


class Llama(Decoder):
    """Llama or one of its kin, of any size, with a tied or an untied head."""

    config: LlamaConfig
    prefix = "model."
    ignored = ROTARY_BUFFERS

    @classmethod
    def weights(cls, config: LlamaConfig) -> tuple[Weight, ...]:
        """How a Hugging Face checkpoint holds the parameters, except the untied head."""
        norms = (
            {"post_norm_1": "post_attention_layernorm", "post_norm_2": "post_feedforward_layernorm"}
            if config.norm_outputs
            else {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
        )
        return weight_rows(
            norms,
            qkv_bias=config.qkv_bias,
            out_bias=config.out_bias,
            mlp_bias=config.mlp_bias,
            qk_norm=config.qk_norm,
        )

    @staticmethod
    def make_block(config: LlamaConfig, rngs: nnx.Rngs) -> Block:
        """One new layer."""
        normal = nnx.initializers.normal(config.initializer_range)

        def norm(heads: int) -> RMSNorm:
            shape = (config.head_dim,) if config.qk_norm == "head" else (heads, config.head_dim)
            return RMSNorm(*shape, epsilon=config.epsilon)

        def norm_if(present: bool) -> RMSNorm | None:
            return Llama.make_norm(config, rngs) if present else None

        return Block(
            norm_1=norm_if(not config.norm_outputs),
            attention=GroupedSelfAttention(
                config.hidden_size,
                config.num_heads,
                config.num_kv_heads,
                config.head_dim,
                qkv_init=normal,
                qkv_bias=config.qkv_bias,
                norm=None if config.qk_norm is None else norm,
                out_init=normal,
                out_bias=config.out_bias,
                dropout_rate=config.attention_dropout,
                rngs=rngs,
            ),
            post_norm_1=norm_if(config.norm_outputs),
            norm_2=norm_if(not config.norm_outputs),
            mlp=GatedMLP(
                config.hidden_size,
                config.mlp_size,
                config.activation,
                init=normal,
                bias=config.mlp_bias,
                rngs=rngs,
            ),
            post_norm_2=norm_if(config.norm_outputs),
        )

    @staticmethod
    def make_norm(config: LlamaConfig, rngs: nnx.Rngs) -> RMSNorm:
        """A new norm of the hidden size."""
        return RMSNorm(config.hidden_size, epsilon=config.epsilon)

    def embed(
        self, tokens: Int[Array, "batch length"], positions: Int[Array, "#batch length"]
    ) -> Float[Array, "batch length embed"]:
        """Token vectors; rotary embeddings handle the positions."""
        return self.enter(self.token_embedding(tokens))

    def rotations(self, positions: Int[Array, "#batch length"]) -> Mapping[str, Rotation]:
        """The rotary embedding of these positions."""
        return {ROPE: self.config.rope(positions)}


def weight_rows(
    norms: Mapping[str, str],
    *,
    qkv_bias: bool,
    out_bias: bool,
    mlp_bias: bool,
    qk_norm: QkNorm | None,
) -> tuple[Weight, ...]:
    """The weight table of a Llama, one of its kin, or a Gemma.

    Args:
        norms: the names of a layer's norms in the checkpoint by those in the module.
        qkv_bias: whether the projections to queries, keys and values have biases.
        out_bias: whether the attention's output projection has one.
        mlp_bias: whether the projections of the MLP have.
        qk_norm: how queries and keys are normalised, as in `LlamaConfig`.
    """
    heads, kv_heads = "heads head_dim", "kv_heads head_dim"
    qk_axes = {"head": ("head_dim",) * 2, "width": (heads, kv_heads), None: ()}[qk_norm]
    return (
        Weight(
            "token_embedding.embedding", "model.embed_tokens.weight", "vocab embed -> vocab embed"
        ),
        *(_vector(f"{ours}.scale", f"{theirs}.weight") for ours, theirs in norms.items()),
        *_linear("attention.query", "self_attn.q_proj", "embed", heads, bias=qkv_bias),
        *_linear("attention.key", "self_attn.k_proj", "embed", kv_heads, bias=qkv_bias),
        *_linear("attention.value", "self_attn.v_proj", "embed", kv_heads, bias=qkv_bias),
        *_linear("attention.out", "self_attn.o_proj", heads, "embed", bias=out_bias),
        *(
            _vector(f"attention.{name}_norm.scale", f"self_attn.{name[0]}_norm.weight", axes)
            for name, axes in zip(("query", "key"), qk_axes, strict=False)
        ),
        *_linear("mlp.gate", "mlp.gate_proj", "embed", "mlp", bias=mlp_bias),
        *_linear("mlp.up", "mlp.up_proj", "embed", "mlp", bias=mlp_bias),
        *_linear("mlp.down", "mlp.down_proj", "mlp", "embed", bias=mlp_bias),
        Weight("final_norm.scale", "model.norm.weight", "embed -> embed"),
    )


def _vector(path: str, name: str, axes: str = "embed") -> Weight:
    """A tensor with one axis in each layer of the checkpoint."""
    return Weight(f"blocks.{path}", f"model.layers.{{layer}}.{name}", f"({axes}) -> {axes}")


def _linear(path: str, name: str, inputs: str, outputs: str, *, bias: bool) -> list[Weight]:
    """The kernel of a product in each layer, and its bias if it has one."""
    kernel = Weight(
        f"blocks.{path}.kernel",
        f"model.layers.{{layer}}.{name}.weight",
        f"({outputs}) ({inputs}) -> {inputs} {outputs}",
    )
    return [kernel, *([_vector(f"{path}.bias", f"{name}.bias", outputs)] if bias else [])]
