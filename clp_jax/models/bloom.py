"""BLOOM (BigScience 2022): ALiBi, normalised word embeddings, interleaved queries, keys, values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import transformers
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from clp_jax.attention import alibi_slopes
from clp_jax.models.configuration import read_fields
from clp_jax.models.decoder import Block, Decoder, DecoderConfig, split_evenly
from clp_jax.models.fused_block import fused_block, layer_norm
from clp_jax.models.self_attention import LayerKind
from clp_jax.models.weights import Weight


@dataclass(frozen=True)
class BloomConfig(DecoderConfig):
    """The configuration of a BLOOM."""

    residual_after_norm: bool
    """Whether each residual starts after the layer norm instead of before it."""

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "BloomConfig":
        """Read the contents of a Hugging Face ``config.json``.

        Raises:
            UserError: a setting is not supported, or its value is invalid.
        """
        cls.refuse_unsupported(values)
        hf: Any = read_fields(transformers.BloomConfig, values)
        return cls(
            vocab_size=hf.vocab_size,
            hidden_size=hf.hidden_size,
            num_layers=hf.n_layer,
            num_heads=hf.n_head,
            num_kv_heads=hf.n_head,
            head_dim=split_evenly(hf.hidden_size, hf.n_head),
            mlp_size=4 * hf.hidden_size,
            max_positions=None,
            activation="gelu_new",
            epsilon=hf.layer_norm_epsilon,
            tied=hf.tie_word_embeddings,
            embedding_dropout=0.0,
            attention_dropout=hf.attention_dropout,
            residual_dropout=hf.hidden_dropout,
            initializer_range=hf.initializer_range,
            layer_kinds=(LayerKind(),) * hf.n_layer,
            residual_after_norm=hf.apply_residual_connection_post_layernorm,
        )


class Bloom(Decoder):
    """BLOOM of any size, with a tied or an untied head."""

    config: BloomConfig
    prefix = "transformer."
    ignored = r"transformer\.h\.\d+\.self_attention\.(masked_)?bias"

    @classmethod
    def weights(cls, config: BloomConfig) -> tuple[Weight, ...]:
        """How a Hugging Face checkpoint holds the parameters, except the untied head."""
        return (
            Weight(
                "token_embedding.embedding",
                "transformer.word_embeddings.weight",
                "vocab embed -> vocab embed",
            ),
            Weight(
                "embedding_norm.scale",
                "transformer.word_embeddings_layernorm.weight",
                "embed -> embed",
            ),
            Weight(
                "embedding_norm.bias",
                "transformer.word_embeddings_layernorm.bias",
                "embed -> embed",
            ),
            Weight(
                "blocks.norm_1.scale",
                "transformer.h.{layer}.input_layernorm.weight",
                "embed -> embed",
            ),
            Weight(
                "blocks.norm_1.bias", "transformer.h.{layer}.input_layernorm.bias", "embed -> embed"
            ),
            Weight(
                "blocks.attention.qkv.kernel",
                "transformer.h.{layer}.self_attention.query_key_value.weight",
                "(heads three head_dim) embed -> embed three heads head_dim",
            ),
            Weight(
                "blocks.attention.qkv.bias",
                "transformer.h.{layer}.self_attention.query_key_value.bias",
                "(heads three head_dim) -> three heads head_dim",
            ),
            Weight(
                "blocks.attention.out.kernel",
                "transformer.h.{layer}.self_attention.dense.weight",
                "embed (heads head_dim) -> heads head_dim embed",
            ),
            Weight(
                "blocks.attention.out.bias",
                "transformer.h.{layer}.self_attention.dense.bias",
                "embed -> embed",
            ),
            Weight(
                "blocks.norm_2.scale",
                "transformer.h.{layer}.post_attention_layernorm.weight",
                "embed -> embed",
            ),
            Weight(
                "blocks.norm_2.bias",
                "transformer.h.{layer}.post_attention_layernorm.bias",
                "embed -> embed",
            ),
            Weight(
                "blocks.mlp.up.kernel",
                "transformer.h.{layer}.mlp.dense_h_to_4h.weight",
                "mlp embed -> embed mlp",
            ),
            Weight(
                "blocks.mlp.up.bias", "transformer.h.{layer}.mlp.dense_h_to_4h.bias", "mlp -> mlp"
            ),
            Weight(
                "blocks.mlp.down.kernel",
                "transformer.h.{layer}.mlp.dense_4h_to_h.weight",
                "embed mlp -> mlp embed",
            ),
            Weight(
                "blocks.mlp.down.bias",
                "transformer.h.{layer}.mlp.dense_4h_to_h.bias",
                "embed -> embed",
            ),
            Weight("final_norm.scale", "transformer.ln_f.weight", "embed -> embed"),
            Weight("final_norm.bias", "transformer.ln_f.bias", "embed -> embed"),
        )

    @staticmethod
    def make_block(config: BloomConfig, rngs: nnx.Rngs) -> Block:
        """One new layer."""
        return fused_block(
            config,
            output_range=config.initializer_range,
            residual_after_norm=config.residual_after_norm,
            rngs=rngs,
        )

    make_norm = staticmethod(layer_norm)

    def __init__(self, config: BloomConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.embedding_norm = self.make_norm(config, rngs)

    def embed(
        self, tokens: Int[Array, "batch length"], positions: Int[Array, "#batch length"]
    ) -> Float[Array, "batch length embed"]:
        """Normalised token vectors; ALiBi handles the positions."""
        return self.embedding_norm(self.enter(self.token_embedding(tokens)))

    def slopes(self) -> Float[Any, " heads"]:
        """ALiBi slope of each head."""
        return alibi_slopes(self.config.num_heads)
