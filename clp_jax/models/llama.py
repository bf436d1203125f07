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

KINDS: Mapping[str, type[transformers.PreTrainedConfig]] = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "smollm3": transformers.SmolLM3Config,
    "olmo2": transformers.Olmo2Config,
}
"""The configuration class of each ``model_type``."""
QkNorm = Literal["head", "width"]
QK_NORMS: Mapping[str, QkNorm] = {"qwen3": "head", "olmo2": "width"}


@dataclass(frozen=True)
class LlamaConfig(DecoderConfig):
    """The configuration of a Llama or one of its kin."""

    rope: RotaryEmbedding
    kinds: tuple[LayerKind, ...]
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: QkNorm | None
    """Queries and keys are normalised head by head, over all heads together, or not at all."""
    norm_outputs: bool
    """Attention and MLP are normalised at their outputs instead of their inputs."""

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each layer."""
        return self.kinds

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "LlamaConfig":
        """Read the contents of a Hugging Face ``config.json``.

        Raises:
            UserError: a setting is not supported, or its value is invalid.
        """
        cls.refuse_unsupported(values)
        kind = values["model_type"]
        hf: Any = read_fields(KINDS[kind], values)
        head_dim = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
        rope = RotaryEmbedding.from_hf(
            hf.rope_parameters, head_dim=head_dim, max_positions=hf.max_position_embeddings
        )
        bias = getattr(hf, "attention_bias", False)
        return cls(
            vocab_size=hf.vocab_size,
            hidden_size=hf.hidden_size,
            num_layers=hf.num_hidden_layers,
            num_heads=hf.num_attention_heads,
            num_kv_heads=hf.num_key_value_heads,
            head_dim=head_dim,
            mlp_size=hf.intermediate_size,
            max_positions=rope.max_positions,
            activation=hf.hidden_act,
            epsilon=hf.rms_norm_eps,
            tied=hf.tie_word_embeddings,
            embedding_dropout=0.0,
            attention_dropout=hf.attention_dropout or 0.0,
            residual_dropout=0.0,
            initializer_range=hf.initializer_range,
            rope=rope,
            kinds=_layer_kinds(hf),
            qkv_bias=kind == "qwen2" or bias,
            out_bias=bias,
            mlp_bias=getattr(hf, "mlp_bias", False),
            qk_norm=QK_NORMS.get(kind),
            norm_outputs=kind == "olmo2",
        )


def _layer_kinds(hf: Any) -> tuple[LayerKind, ...]:
    """The window of each layer and whether it has rotary embeddings."""
    layers = hf.num_hidden_layers
    types = getattr(hf, "layer_types", None) or ["sliding_attention"] * layers
    rotated = (
        getattr(hf, "no_rope_layers", None) or [1] * layers
    )  # 1 marks the layers that have it.
    windows = {"full_attention": None, "sliding_attention": getattr(hf, "sliding_window", None)}
    if unknown := {*types} - windows.keys():
        raise UserError(f"layer_types {', '.join(sorted(unknown))} is not supported.")
    return tuple(
        LayerKind(window=windows[kind], rope=ROPE if has_rope else None)
        for kind, has_rope in zip(types, rotated[:layers], strict=True)
    )


class Llama(Decoder):
    """Llama or one of its kin, of any size, with a tied or an untied head."""

    config: LlamaConfig
    prefix = "model."
    ignored = r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"

    @classmethod
    def weights(cls, config: LlamaConfig) -> tuple[Weight, ...]:
        """How a Hugging Face checkpoint holds the parameters, except the untied head."""
        norms = (
            {"post_norm_1": "post_attention_layernorm", "post_norm_2": "post_feedforward_layernorm"}
            if config.norm_outputs
            else {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
        )
        return (
            Weight(
                "token_embedding.embedding",
                "model.embed_tokens.weight",
                "vocab embed -> vocab embed",
            ),
            *(layer_weight(f"{ours}.scale", f"{theirs}.weight") for ours, theirs in norms.items()),
            *attention_weights(config.qkv_bias, config.out_bias, config.qk_norm),
            *mlp_weights(config.mlp_bias),
            Weight("final_norm.scale", "model.norm.weight", "embed -> embed"),
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


def layer_weight(path: str, name: str, pattern: str = "embed -> embed") -> Weight:
    """A tensor of every layer, as Llama and Gemma name it."""
    return Weight(f"blocks.{path}", f"model.layers.{{layer}}.{name}", pattern)


def attention_weights(qkv_bias: bool, out_bias: bool, qk_norm: QkNorm | None) -> list[Weight]:
    """The tensors of an attention with separate projections."""
    rows = []
    for part, heads in {"query": "heads", "key": "kv_heads", "value": "kv_heads"}.items():
        path, name, ours = f"attention.{part}", f"self_attn.{part[0]}", f"{heads} head_dim"
        rows.append(
            layer_weight(f"{path}.kernel", f"{name}_proj.weight", f"({ours}) embed -> embed {ours}")
        )
        if qkv_bias:
            rows.append(layer_weight(f"{path}.bias", f"{name}_proj.bias", f"({ours}) -> {ours}"))
        if qk_norm is not None and part != "value":
            pattern = "head_dim -> head_dim" if qk_norm == "head" else f"({ours}) -> {ours}"
            rows.append(layer_weight(f"{path}_norm.scale", f"{name}_norm.weight", pattern))
    rows.append(
        layer_weight(
            "attention.out.kernel",
            "self_attn.o_proj.weight",
            "embed (heads head_dim) -> heads head_dim embed",
        )
    )
    if out_bias:
        rows.append(layer_weight("attention.out.bias", "self_attn.o_proj.bias"))
    return rows


def mlp_weights(bias: bool) -> list[Weight]:
    """The tensors of a gated MLP."""
    rows = []
    for part, inputs, outputs in (
        ("gate", "embed", "mlp"),
        ("up", "embed", "mlp"),
        ("down", "mlp", "embed"),
    ):
        path, name = f"mlp.{part}", f"mlp.{part}_proj"
        pattern = f"{outputs} {inputs} -> {inputs} {outputs}"
        rows.append(layer_weight(f"{path}.kernel", f"{name}.weight", pattern))
        if bias:
            rows.append(layer_weight(f"{path}.bias", f"{name}.bias", f"{outputs} -> {outputs}"))
    return rows
