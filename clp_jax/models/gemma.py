"""Gemma 2 and 3 (Google 2024, 2025): norms around every part, local and global attention by turns.

The stored factors of the norms are less by one, the input rows are multiplied by the square root of
the hidden size, and Gemma 2 bounds its scores and logits. Gemma 3 normalises queries and keys
instead, and its local layers have a rotary embedding of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import transformers
from flax import nnx
from jaxtyping import Array, Float, Int

from clp_jax.models.configuration import read_fields
from clp_jax.models.decoder import Block, Decoder, DecoderConfig
from clp_jax.models.layers import GatedMLP, RMSNorm
from clp_jax.models.llama import (
    GLOBAL,
    LOCAL,
    ROTARY_BUFFERS,
    layer_types,
    read_rope,
    shared_fields,
    weight_rows,
)
from clp_jax.models.rope import RotaryEmbedding, Rotation
from clp_jax.models.self_attention import GroupedSelfAttention, LayerKind
from clp_jax.models.weights import Weight

KINDS = ("gemma2", "gemma3_text")
"""Each ``model_type``."""
NORMS = {
    "norm_1": "input_layernorm",
    "post_norm_1": "post_attention_layernorm",
    "norm_2": "pre_feedforward_layernorm",
    "post_norm_2": "post_feedforward_layernorm",
}


@dataclass(frozen=True)
class GemmaConfig(DecoderConfig):
    """The configuration of a Gemma 2 or 3."""

    local_rope: RotaryEmbedding
    """The rotary embedding of layers with a window."""
    global_rope: RotaryEmbedding
    """The rotary embedding of the others."""
    score_scale: float
    """Factor of the attention scores."""
    score_softcap: float | None
    """Bound of the attention scores; None: unbounded."""
    bias: bool
    """Whether the attention's projections have biases."""
    qk_norm: bool
    """Whether queries and keys are normalised."""

    only: ClassVar[Mapping[str, Any]] = {
        **DecoderConfig.only,
        "use_bidirectional_attention": False,
    }

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "GemmaConfig":
        """Read the contents of a Hugging Face ``config.json``.

        Raises:
            UserError: a setting is not supported, or its value is invalid.
        """
        cls.refuse_unsupported(values)
        hf: Any = read_fields(transformers.CONFIG_MAPPING[values["model_type"]], values)
        gemma3, ropes = hf.model_type == "gemma3_text", hf.rope_parameters
        local, everywhere = (
            read_rope(hf, ropes[kind] if gemma3 else ropes) for kind in (LOCAL, GLOBAL)
        )
        kinds = {
            LOCAL: LayerKind(window=hf.sliding_window, rope=LOCAL),
            GLOBAL: LayerKind(rope=GLOBAL),
        }
        return cls(
            **shared_fields(hf),
            max_positions=everywhere.max_positions or local.max_positions,
            activation=hf.hidden_activation,
            layer_kinds=tuple(kinds[kind] for kind in layer_types(hf)),
            final_softcap=hf.final_logit_softcapping,
            local_rope=local,
            global_rope=everywhere,
            score_scale=hf.query_pre_attn_scalar**-0.5,
            # Gemma 3 has the key, but transformers' Gemma 3 does not read it.
            score_softcap=None if gemma3 else hf.attn_logit_softcapping,
            bias=hf.attention_bias,
            qk_norm=gemma3,
        )


class Gemma(Decoder):
    """Gemma 2 or 3 of any size, with a tied or an untied head."""

    config: GemmaConfig
    prefix = "model."
    ignored = ROTARY_BUFFERS

    @classmethod
    def weights(cls, config: GemmaConfig) -> tuple[Weight, ...]:
        """How a Hugging Face checkpoint holds the parameters, except the untied head."""
        return weight_rows(
            NORMS,
            qkv_bias=config.bias,
            out_bias=config.bias,
            mlp_bias=False,
            qk_norm="head" if config.qk_norm else None,
        )

    @staticmethod
    def make_block(config: GemmaConfig, rngs: nnx.Rngs) -> Block:
        """One new layer."""
        normal = nnx.initializers.normal(config.initializer_range)

        def norm_heads(heads: int) -> RMSNorm:
            return RMSNorm(config.head_dim, epsilon=config.epsilon, offset=1.0)

        return Block(
            norm_1=Gemma.make_norm(config, rngs),
            post_norm_1=Gemma.make_norm(config, rngs),
            norm_2=Gemma.make_norm(config, rngs),
            post_norm_2=Gemma.make_norm(config, rngs),
            attention=GroupedSelfAttention(
                config.hidden_size,
                config.num_heads,
                config.num_kv_heads,
                config.head_dim,
                qkv_init=normal,
                qkv_bias=config.bias,
                norm=norm_heads if config.qk_norm else None,
                out_init=normal,
                out_bias=config.bias,
                dropout_rate=config.attention_dropout,
                softcap=config.score_softcap,
                rngs=rngs,
            ),
            mlp=GatedMLP(
                config.hidden_size, config.mlp_size, config.activation, init=normal, rngs=rngs
            ),
        )

    @staticmethod
    def make_norm(config: GemmaConfig, rngs: nnx.Rngs) -> RMSNorm:
        """A new norm of the hidden size."""
        return RMSNorm(config.hidden_size, epsilon=config.epsilon, offset=1.0)

    def embed(
        self, tokens: Int[Array, "batch length"], positions: Int[Array, "#batch length"]
    ) -> Float[Array, "batch length embed"]:
        """Token vectors times the square root of the hidden size, rounded as activations are."""
        factor = jnp.asarray(self.config.hidden_size**0.5, self.dtype)
        return self.enter(self.token_embedding(tokens)) * factor

    def softmax_scales(self) -> Float[Array, " layers"]:
        """Factor of each layer's attention scores."""
        return jnp.full(self.config.num_layers, self.config.score_scale, jnp.float32)

    def rotations(self, positions: Int[Array, "#batch length"]) -> Mapping[str, Rotation]:
        """The rotary embeddings of these positions for local and for global layers."""
        config = self.config
        return {LOCAL: config.local_rope(positions), GLOBAL: config.global_rope(positions)}
