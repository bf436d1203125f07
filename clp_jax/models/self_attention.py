"""Causal self-attention with a key-value cache, its projections fused or separate."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, PRNGKeyArray

from clp_jax.attention import at_the_beginning, attend
from clp_jax.models.layers import Linear, RMSNorm
from clp_jax.models.rope import Rotation, rotate

KeysAndValues = tuple[
    Float[Array, "layers batch cached kv_heads dim"],
    Float[Array, "layers batch cached kv_heads dim"],
]


class LayerKind(NamedTuple):
    """What the compiler must know of a layer's attention; layers of one kind share a program.

    Attributes:
        window: how many positions a query sees, itself included; None: all.
        rope: the name of the layer's rotary embedding; None: it has none.
    """

    window: int | None = None
    rope: str | None = None


class AttentionInputs(NamedTuple):
    """What a layer's attention needs in addition to the activations.

    Attributes:
        scale: factor of the scores.
        slopes: ALiBi slope of each head, or None.
        rotations: the rotary embeddings of the positions, by name.
        start: position of the first query in the cache.
        segments: the document of each token, if attention must stay within it.
        layer: the layer's number, which is its place in the cache.
        cache: keys and values of all layers, or None.
    """

    scale: Float[Array, ""]
    slopes: Float[Any, " heads"] | None
    rotations: Mapping[str, Rotation]
    start: int | Int[Array, ""]
    segments: Int[Array, "batch length"] | None
    layer: Int[Array, ""]
    cache: KeysAndValues | None


class SelfAttention(nnx.Module):
    """Attention of each position to those before it; subclasses project to queries, keys, values.

    Args:
        embed: width of the hidden states.
        heads: number of heads.
        head_dim: width of a head.
        out_init: initializer of the output projection.
        out_bias: whether the output projection has a bias.
        dropout_rate: fraction of the attention weights that is dropped.
        softcap: bound of the scores, which approach it as a tanh does; None: unbounded.
    """

    def __init__(
        self,
        embed: int,
        heads: int,
        head_dim: int,
        *,
        out_init: nnx.Initializer,
        out_bias: bool = True,
        dropout_rate: float = 0.0,
        softcap: float | None = None,
        rngs: nnx.Rngs,
    ):
        self.out = Linear(
            (heads, head_dim),
            embed,
            axis=(-2, -1),
            kernel_init=out_init,
            use_bias=out_bias,
            rngs=rngs,
        )
        self.dropout_rate = dropout_rate
        self.softcap = softcap

    def project(
        self, x: Float[Array, "batch length embed"]
    ) -> tuple[
        Float[Array, "batch length heads dim"],
        Float[Array, "batch length kv_heads dim"],
        Float[Array, "batch length kv_heads dim"],
    ]:
        """Queries, keys and values, before rotary embeddings."""
        raise NotImplementedError

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        inputs: AttentionInputs,
        kind: LayerKind,
        dropout_key: PRNGKeyArray | None,
    ) -> tuple[Float[Array, "batch length embed"], KeysAndValues | None]:
        """Attend to the positions so far.

        The cache is that of all layers; it is returned with this layer's new keys and values.
        """
        query, key, value = self.project(x)
        if kind.rope is not None:
            rotation = inputs.rotations[kind.rope]
            query, key = rotate(query, rotation), rotate(key, rotation)
        query, key, value = (_kept_flat(x, "qkv") for x in (query, key, value))
        cache = inputs.cache
        if cache is not None:
            at = (inputs.layer, 0, inputs.start, 0, 0)
            cache = (
                jax.lax.dynamic_update_slice(cache[0], key[None], at),
                jax.lax.dynamic_update_slice(cache[1], value[None], at),
            )
            if not at_the_beginning(inputs.start):
                key, value = cache[0][inputs.layer], cache[1][inputs.layer]
        attended = attend(
            query,
            key,
            value,
            scale=inputs.scale,
            slopes=inputs.slopes,
            window=kind.window,
            softcap=self.softcap,
            start=inputs.start,
            segments=inputs.segments,
            dropout_rate=self.dropout_rate,
            dropout_key=dropout_key,
        )
        return checkpoint_name(self.out(attended), "attention_out"), cache


class FusedSelfAttention(SelfAttention):
    """Self-attention with one projection to queries, keys and values, as in GPT-2 and BLOOM."""

    def __init__(
        self,
        embed: int,
        heads: int,
        head_dim: int,
        *,
        qkv_init: nnx.Initializer,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        self.qkv = Linear(embed, (3, heads, head_dim), kernel_init=qkv_init, rngs=rngs)
        super().__init__(embed, heads, head_dim, rngs=rngs, **options)

    def project(self, x: Float[Array, "batch length embed"]) -> tuple[Array, Array, Array]:
        """Queries, keys and values, equally many heads of each."""
        query, key, value = jnp.moveaxis(self.qkv(x), -3, 0)
        return query, key, value


class GroupedSelfAttention(SelfAttention):
    """Self-attention whose keys and values may have fewer heads than its queries.

    Args:
        embed: width of the hidden states.
        heads: number of query heads.
        kv_heads: number of heads of keys and values, which divides ``heads``.
        head_dim: width of a head.
        qkv_init: initializer of the three projections.
        qkv_bias: whether they have biases.
        norm: makes the norm of queries or keys before rotary embeddings, given the number of heads;
            None: they have none.
        rngs: random streams of the initializers.
        options: passed to `SelfAttention`.
    """

    def __init__(
        self,
        embed: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        qkv_init: nnx.Initializer,
        qkv_bias: bool = False,
        norm: Callable[[int], RMSNorm] | None = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        def projection(heads: int) -> Linear:
            return Linear(
                embed, (heads, head_dim), kernel_init=qkv_init, use_bias=qkv_bias, rngs=rngs
            )

        self.query, self.key, self.value = map(projection, (heads, kv_heads, kv_heads))
        self.query_norm = None if norm is None else norm(heads)
        self.key_norm = None if norm is None else norm(kv_heads)
        super().__init__(embed, heads, head_dim, rngs=rngs, **options)

    def project(self, x: Float[Array, "batch length embed"]) -> tuple[Array, Array, Array]:
        """Queries, keys and values; queries and keys are normalised if there are norms."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value


def _kept_flat(
    x: Float[Array, "batch length heads dim"], name: str
) -> Float[Array, "batch length heads dim"]:
    """Name ``x`` for rematerialisation while flat: TPUs pad a saved array's last axis to 128."""
    return checkpoint_name(x.reshape(*x.shape[:2], -1), name).reshape(x.shape)
