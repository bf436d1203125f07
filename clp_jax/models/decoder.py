"""What GPT-2 and BLOOM share: configuration, layers stacked and scanned, head, key-value cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from clp_jax.attention import attend, dropout, precision_of
from clp_jax.config import Remat
from clp_jax.errors import UserError
from clp_jax.mesh import shard_activations
from clp_jax.models.layers import Embedding, LayerNorm, Linear
from clp_jax.models.weights import Weight

# What a layer saves for its backward pass in addition to its input, by the checkpoint names of its
# intermediate results; the kernels name `attended`, since they need more than the result back.
SAVED_BY_POLICY: Mapping[Remat, tuple[str, ...]] = {
    "full": (),
    "attention": ("attended",),
    "attention_block": ("attended", "qkv", "attention_out"),
    "dots": ("attended", "qkv", "attention_out", "mlp_up"),
}

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


@dataclass(frozen=True)
class DecoderConfig:
    """The numbers that define a decoder; each architecture adds its own."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_size: int
    max_positions: int | None
    """Longest sequence the model can read; None if positions have no parameters."""
    activation: str
    epsilon: float
    tied: bool
    """Whether the output embedding is the input embedding."""
    embedding_dropout: float
    attention_dropout: float
    residual_dropout: float
    initializer_range: float
    output_range: float
    """Standard deviation of new weights that write to the residual; initializer_range otherwise."""
    residual_after_norm: bool
    """Whether each residual starts after the layer norm instead of before it."""

    # Settings that change the results and are not implemented, with the value that is accepted.
    only: ClassVar[Mapping[str, Any]] = {
        "add_cross_attention": False,
        "is_encoder_decoder": False,
        "quantization_config": None,
        "pruned_heads": {},
    }

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"the hidden size {self.hidden_size} is not a multiple of the "
                f"{self.num_heads} attention heads."
            )
        if self.activation not in ACTIVATIONS:
            raise UserError(
                f"activation function {self.activation!r} is not supported; "
                f"choose one of {', '.join(ACTIVATIONS)}."
            )

    @classmethod
    def refuse_unsupported(cls, values: Mapping[str, Any]) -> None:
        """Refuse a Hugging Face configuration with settings that are not implemented.

        Raises:
            UserError: names every such setting.
        """
        faults = [
            f"{key}={values[key]!r}"
            for key, fine in cls.only.items()
            if key in values and values[key] not in (fine, None)
        ]
        if faults:
            raise UserError(f"{', '.join(faults)} is not supported.")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each named dimension of the weight tables."""
        return {
            "layers": self.num_layers,
            "vocab": self.vocab_size,
            "positions": self.max_positions or 0,
            "embed": self.hidden_size,
            "three": 3,
            "heads": self.num_heads,
            "head_dim": self.head_dim,
            "mlp": self.mlp_size,
        }


class Cache(NamedTuple):
    """Keys and values of the positions already read, for generation."""

    key: Float[Array, "layers batch length heads dim"]
    value: Float[Array, "layers batch length heads dim"]
    used: Int[Array, ""]
    """Number of filled positions."""

    @classmethod
    def empty(cls, config: DecoderConfig, batch: int, length: int, dtype: DTypeLike) -> "Cache":
        """A cache for ``length`` positions of ``batch`` sequences."""
        shape = (config.num_layers, batch, length, config.num_heads, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))


class Attention(nnx.Module):
    """Multi-head causal self-attention."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        embed, heads, head_dim = config.hidden_size, config.num_heads, config.head_dim
        self.qkv = Linear(
            embed,
            (3, heads, head_dim),
            kernel_init=nnx.initializers.normal(config.initializer_range),
            rngs=rngs,
        )
        self.out = Linear(
            (heads, head_dim),
            embed,
            axis=(-2, -1),
            kernel_init=nnx.initializers.normal(config.output_range),
            rngs=rngs,
        )
        self.dropout_rate = config.attention_dropout

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        scale: float | Float[Array, ""],
        slopes: Any,
        dropout_key: PRNGKeyArray | None,
        cache: tuple[Array, Array] | None,
        layer: Int[Array, ""],
        start: int | Int[Array, ""],
        segments: Int[Array, "batch length"] | None,
    ) -> tuple[Float[Array, "batch length embed"], tuple[Array, Array] | None]:
        """Attend to the positions so far.

        The cache is that of all layers; it is returned with this layer's new keys and values.
        """
        query, key, value = (_kept_flat(x, "qkv") for x in jnp.moveaxis(self.qkv(x), -3, 0))
        if cache is not None:
            at = (layer, 0, start, 0, 0)
            cache = (
                jax.lax.dynamic_update_slice(cache[0], key[None], at),
                jax.lax.dynamic_update_slice(cache[1], value[None], at),
            )
            key, value = cache[0][layer], cache[1][layer]
        attended = attend(
            query,
            key,
            value,
            scale=scale,
            slopes=slopes,
            start=start,
            segments=segments,
            dropout_rate=self.dropout_rate,
            dropout_key=dropout_key,
        )
        return checkpoint_name(self.out(attended), "attention_out"), cache


def _kept_flat(
    x: Float[Array, "batch length heads dim"], name: str
) -> Float[Array, "batch length heads dim"]:
    """Name ``x`` for rematerialisation while flat: TPUs pad a saved array's last axis to 128."""
    return checkpoint_name(x.reshape(*x.shape[:2], -1), name).reshape(x.shape)


class MLP(nnx.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.up = Linear(
            config.hidden_size,
            config.mlp_size,
            kernel_init=nnx.initializers.normal(config.initializer_range),
            rngs=rngs,
        )
        self.down = Linear(
            config.mlp_size,
            config.hidden_size,
            kernel_init=nnx.initializers.normal(config.output_range),
            rngs=rngs,
        )
        self.activation = config.activation

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Apply the layers to each position."""
        return self.down(ACTIVATIONS[self.activation](checkpoint_name(self.up(x), "mlp_up")))


def layer_norm(config: DecoderConfig, rngs: nnx.Rngs) -> LayerNorm:
    """A layer norm of the hidden size."""
    return LayerNorm(config.hidden_size, epsilon=config.epsilon, use_fast_variance=False, rngs=rngs)


def embedding(rows: int, config: DecoderConfig, rngs: nnx.Rngs) -> Embedding:
    """A table of ``rows`` vectors of the hidden size."""
    return Embedding(
        rows,
        config.hidden_size,
        embedding_init=nnx.initializers.normal(config.initializer_range),
        rngs=rngs,
    )


def to_logits(
    hidden: Float[Array, "*batch embed"], head: Float[Array, "vocab embed"]
) -> Float[Array, "*batch vocab"]:
    """Float32 logits of final hidden states, multiplied in the dtype of the hidden states."""
    return jnp.einsum(
        "...d,vd->...v",
        hidden,
        head.astype(hidden.dtype),
        precision=precision_of(hidden.dtype),
        preferred_element_type=jnp.float32,
    )


class Block(nnx.Module):
    """One layer: attention and MLP, each after a layer norm and with a residual connection."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.norm_1 = layer_norm(config, rngs)
        self.attention = Attention(config, rngs)
        self.norm_2 = layer_norm(config, rngs)
        self.mlp = MLP(config, rngs)
        self.dropout_rate = config.residual_dropout
        self.residual_after_norm = config.residual_after_norm

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        *,
        dropout_key: PRNGKeyArray | None,
        **attention: Any,
    ) -> tuple[Float[Array, "batch length embed"], tuple[Array, Array] | None]:
        """Apply the layer; ``attention`` is passed to `Attention`."""
        keys = [None] * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        normed = self.norm_1(x)
        attended, cache = self.attention(normed, dropout_key=keys[0], **attention)
        x = (normed if self.residual_after_norm else x) + dropout(
            attended, self.dropout_rate, keys[1]
        )
        normed = self.norm_2(x)
        x = (normed if self.residual_after_norm else x) + dropout(
            self.mlp(normed), self.dropout_rate, keys[2]
        )
        return x, cache


class Decoder(nnx.Module):
    """A causal language model whose layers are stacked in one module and scanned.

    Parameters are created in float32; ``dtype`` is that of the computation. Softmax, layer-norm
    statistics and logits are float32 in either case.
    """

    weights: ClassVar[tuple[Weight, ...]]
    """How a Hugging Face checkpoint holds the parameters, except the untied head."""
    ignored: ClassVar[str]
    """Regular expression of checkpoint tensors that are not parameters, such as causal masks."""

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        self.token_embedding = embedding(config.vocab_size, config, rngs)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs)

        self.blocks = stack(rngs)
        self.final_norm = layer_norm(config, rngs)
        if not config.tied:
            self.head = embedding(config.vocab_size, config, rngs)

    def embed(
        self, tokens: Int[Array, "batch length"], positions: Int[Array, "#batch length"]
    ) -> Float[Array, "batch length embed"]:
        """Input of the first layer for tokens at these positions, which may differ between rows."""
        raise NotImplementedError

    def enter(self, rows: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Embedding rows as activations: in the computation's dtype, sharded like the tokens."""
        return shard_activations(rows.astype(self.dtype))

    def softmax_scales(self) -> Float[Array, " layers"]:
        """Factor of each layer's attention scores."""
        return jnp.full(self.config.num_layers, self.config.head_dim**-0.5, jnp.float32)

    def slopes(self) -> Float[Any, " heads"] | None:
        """ALiBi slope of each head, or None."""
        return None

    def output_embedding(self) -> Float[Array, "vocab embed"]:
        """The matrix that turns hidden states into logits."""
        return (self.token_embedding if self.config.tied else self.head).embedding[...]

    def hidden_states(
        self,
        tokens: Int[Array, "batch length"],
        *,
        segments: Int[Array, "batch length"] | None = None,
        positions: Int[Array, "batch length"] | None = None,
        dropout_key: PRNGKeyArray | None = None,
        remat: Remat = "none",
    ) -> Float[Array, "batch length embed"]:
        """Final hidden states in the dtype of the computation.

        Args:
            tokens: token ids.
            segments: the document of each token, if attention must stay within it.
            positions: for models that learn a vector per position; None: 0, 1, ...
            dropout_key: random key of the dropout; None turns it off.
            remat: what a layer saves for the backward pass, see `train.remat`.
        """
        return self._trunk(
            tokens, segments=segments, positions=positions, dropout_key=dropout_key, remat=remat
        )[0]

    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length vocab"]:
        """Logits of the next token at each position, in float32."""
        return to_logits(self.hidden_states(tokens), self.output_embedding())

    def decode(
        self, tokens: Int[Array, "batch length"], cache: Cache, last: int | Int[Array, ""]
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits of the token that follows the token ``last``, and the updated cache.

        Args:
            tokens: token ids that follow those in the cache.
            cache: the previous positions; updated in place if donated.
            last: index in ``tokens`` of the token whose logits are requested.
        """
        hidden, cache_or_none = self._trunk(tokens, cache=cache)
        assert cache_or_none is not None
        hidden = jax.lax.dynamic_index_in_dim(hidden, last, axis=1, keepdims=False)
        return to_logits(hidden, self.output_embedding()), cache_or_none

    def flops_per_token(self, length: int) -> int:
        """Floating-point operations of one training step per token, forward and backward.

        6 for each weight of a matrix product (the output embedding is one, the lookup in the input
        embedding is not), and 6 * layers * length * hidden size for the causal half of the
        attention's two products. Recomputation is not counted.
        """
        config = self.config
        layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.mlp_size
        products = config.num_layers * layer + config.vocab_size * config.hidden_size
        return 6 * products + 6 * config.num_layers * length * config.hidden_size

    def _trunk(
        self,
        tokens: Array,
        *,
        cache: Cache | None = None,
        segments: Array | None = None,
        positions: Array | None = None,
        dropout_key: PRNGKeyArray | None = None,
        remat: Remat = "none",
    ) -> tuple[Array, Cache | None]:
        config = self.config
        start = 0 if cache is None else cache.used
        if positions is None:
            positions = start + jnp.arange(tokens.shape[1])[None]
        shared = {"slopes": self.slopes(), "start": start, "segments": segments}
        input_key, layer_keys = None, None
        if dropout_key is not None:
            input_key, dropout_key = jax.random.split(dropout_key)
            layer_keys = jax.random.split(dropout_key, config.num_layers)
        graphdef, params = nnx.split(self.blocks)

        def layer(carried: tuple[Array, Any], scanned: Any) -> tuple[tuple[Array, Any], None]:
            params, scale, key, number = scanned
            x, stored = carried
            block = nnx.merge(graphdef, params)
            return block(
                x, scale=scale, dropout_key=key, cache=stored, layer=number, **shared
            ), None

        if remat != "none":
            policy = jax.checkpoint_policies.save_only_these_names(*SAVED_BY_POLICY[remat])
            layer = jax.checkpoint(layer, policy=policy, prevent_cse=False)
        x = dropout(self.embed(tokens, positions), config.embedding_dropout, input_key)
        stored: Any = None if cache is None else (cache.key, cache.value)
        numbers = jnp.arange(config.num_layers)
        (x, stored), _ = jax.lax.scan(
            layer,
            (x, stored),
            (params, self.softmax_scales(), layer_keys, numbers),
        )
        if cache is not None:
            key, value = stored
            cache = Cache(key, value, cache.used + tokens.shape[1])
        return self.final_norm(x), cache
