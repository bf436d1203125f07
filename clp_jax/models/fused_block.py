"""The layer of GPT-2 and BLOOM: layer norms, fused queries, keys and values, and a plain MLP."""

from flax import nnx

from clp_jax.models.decoder import Block, DecoderConfig
from clp_jax.models.layers import MLP, LayerNorm
from clp_jax.models.self_attention import FusedSelfAttention


def layer_norm(config: DecoderConfig, rngs: nnx.Rngs) -> LayerNorm:
    """A new layer norm of the hidden size."""
    return LayerNorm(config.hidden_size, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs)


def fused_block(
    config: DecoderConfig,
    *,
    output_range: float,
    residual_after_norm: bool = False,
    rngs: nnx.Rngs,
) -> Block:
    """One new layer.

    Args:
        config: sizes, dropout and the standard deviation of new weights.
        output_range: standard deviation of new weights that write to the residual.
        residual_after_norm: whether each residual starts after the norm instead of before it.
        rngs: random streams of the initializers.
    """
    normal = nnx.initializers.normal(config.initializer_range)
    output = nnx.initializers.normal(output_range)
    return Block(
        norm_1=layer_norm(config, rngs),
        attention=FusedSelfAttention(
            config.hidden_size,
            config.num_heads,
            config.head_dim,
            qkv_init=normal,
            out_init=output,
            dropout_rate=config.attention_dropout,
            rngs=rngs,
        ),
        norm_2=layer_norm(config, rngs),
        mlp=MLP(
            config.hidden_size,
            config.mlp_size,
            config.activation,
            up_init=normal,
            down_init=output,
            rngs=rngs,
        ),
        dropout_rate=config.residual_dropout,
        residual_after_norm=residual_after_norm,
    )
