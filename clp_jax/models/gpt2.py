"""GPT-2 (Radford et al. 2019): learned positions, pre-norm layers, Conv1D weights [in, out]."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import transformers
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from clp_jax.models.configuration import read_fields
from clp_jax.models.decoder import Block, Decoder, DecoderConfig, embedding, split_evenly
from clp_jax.models.fused_block import fused_block, layer_norm
from clp_jax.models.self_attention import LayerKind
from clp_jax.models.weights import Weight


@dataclass(frozen=True)
class GPT2Config(DecoderConfig):
    """The configuration of a GPT-2."""

    max_positions: int
    scale_scores: bool
    """Divide attention scores by the square root of the head's width."""
    scale_by_layer: bool
    """Divide the scores of layer i, counted from 1, by i."""

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> "GPT2Config":
        """Read the contents of a Hugging Face ``config.json``.

        Raises:
            UserError: a setting is not supported, or its value is invalid.
        """
        cls.refuse_unsupported(values)
        hf: Any = read_fields(transformers.GPT2Config, values)
        return cls(
            vocab_size=hf.vocab_size,
            hidden_size=hf.n_embd,
            num_layers=hf.n_layer,
            num_heads=hf.n_head,
            num_kv_heads=hf.n_head,
            head_dim=split_evenly(hf.n_embd, hf.n_head),
            mlp_size=4 * hf.n_embd if hf.n_inner is None else hf.n_inner,
            max_positions=hf.n_positions,
            activation=hf.activation_function,
            epsilon=hf.layer_norm_epsilon,
            tied=hf.tie_word_embeddings,
            embedding_dropout=hf.embd_pdrop,
            attention_dropout=hf.attn_pdrop,
            residual_dropout=hf.resid_pdrop,
            initializer_range=hf.initializer_range,
            layer_kinds=(LayerKind(),) * hf.n_layer,
            scale_scores=hf.scale_attn_weights,
            scale_by_layer=hf.scale_attn_by_inverse_layer_idx,
        )


class GPT2(Decoder):
    """GPT-2 of any size, with a tied or an untied head."""

    config: GPT2Config
    prefix = "transformer."
    ignored = r"transformer\.h\.\d+\.attn\.(masked_)?bias"

    @classmethod
    def weights(cls, config: GPT2Config) -> tuple[Weight, ...]:
        """How a Hugging Face checkpoint holds the parameters, except the untied head."""
        return (
            Weight(
                "token_embedding.embedding", "transformer.wte.weight", "vocab embed -> vocab embed"
            ),
            Weight(
                "position_embedding.embedding",
                "transformer.wpe.weight",
                "positions embed -> positions embed",
            ),
            Weight("blocks.norm_1.scale", "transformer.h.{layer}.ln_1.weight", "embed -> embed"),
            Weight("blocks.norm_1.bias", "transformer.h.{layer}.ln_1.bias", "embed -> embed"),
            Weight(
                "blocks.attention.qkv.kernel",
                "transformer.h.{layer}.attn.c_attn.weight",
                "embed (three heads head_dim) -> embed three heads head_dim",
            ),
            Weight(
                "blocks.attention.qkv.bias",
                "transformer.h.{layer}.attn.c_attn.bias",
                "(three heads head_dim) -> three heads head_dim",
            ),
            Weight(
                "blocks.attention.out.kernel",
                "transformer.h.{layer}.attn.c_proj.weight",
                "(heads head_dim) embed -> heads head_dim embed",
            ),
            Weight(
                "blocks.attention.out.bias",
                "transformer.h.{layer}.attn.c_proj.bias",
                "embed -> embed",
            ),
            Weight("blocks.norm_2.scale", "transformer.h.{layer}.ln_2.weight", "embed -> embed"),
            Weight("blocks.norm_2.bias", "transformer.h.{layer}.ln_2.bias", "embed -> embed"),
            Weight(
                "blocks.mlp.up.kernel",
                "transformer.h.{layer}.mlp.c_fc.weight",
                "embed mlp -> embed mlp",
            ),
            Weight("blocks.mlp.up.bias", "transformer.h.{layer}.mlp.c_fc.bias", "mlp -> mlp"),
            Weight(
                "blocks.mlp.down.kernel",
                "transformer.h.{layer}.mlp.c_proj.weight",
                "mlp embed -> mlp embed",
            ),
            Weight(
                "blocks.mlp.down.bias", "transformer.h.{layer}.mlp.c_proj.bias", "embed -> embed"
            ),
            Weight("final_norm.scale", "transformer.ln_f.weight", "embed -> embed"),
            Weight("final_norm.bias", "transformer.ln_f.bias", "embed -> embed"),
        )

    @staticmethod
    def make_block(config: GPT2Config, rngs: nnx.Rngs) -> Block:
        """One new layer; what writes to the residual starts smaller the more layers there are."""
        output_range = config.initializer_range / (2 * config.num_layers) ** 0.5
        return fused_block(config, output_range=output_range, rngs=rngs)

    make_norm = staticmethod(layer_norm)

    def __init__(self, config: GPT2Config, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.position_embedding = embedding(config.max_positions, config, rngs)

    def embed(
        self, tokens: Int[Array, "batch length"], positions: Int[Array, "#batch length"]
    ) -> Float[Array, "batch length embed"]:
        """Token vectors plus position vectors."""
        return self.enter(self.token_embedding(tokens) + self.position_embedding(positions))

    def softmax_scales(self) -> Float[Array, " layers"]:
        """Factor of each layer's attention scores."""
        config = self.config
        scales = jnp.ones(config.num_layers, jnp.float32)
        if config.scale_scores:
            scales = scales / config.head_dim**0.5
        if config.scale_by_layer:
            scales = scales / jnp.arange(1, config.num_layers + 1)
        return scales
