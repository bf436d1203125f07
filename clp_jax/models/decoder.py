"""What all architectures share: configuration, scanned layers, head, key-value cache."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from clp_jax.attention import at_the_beginning, capped, dropout, precision_of
from clp_jax.config import LoraSection, Remat
from clp_jax.errors import UserError
from clp_jax.mesh import shard_activations
from clp_jax.models.layers import ACTIVATIONS, MLP, Embedding, GatedMLP, LayerNorm, RMSNorm
from clp_jax.models.lora import add_adapters
from clp_jax.models.rope import Rotation
from clp_jax.models.self_attention import (
    AttentionInputs,
    KeysAndValues,
    LayerKind,
    SelfAttention,
)
from clp_jax.models.weights import Weight

# What a layer saves for its backward pass in addition to its input, by the checkpoint names of its
# intermediate results; the kernels name `attended`, since they need more than the result back.
SAVED_BY_POLICY: Mapping[Remat, tuple[str, ...]] = {
    "full": (),
    "attention": ("attended",),
    "attention_block": ("attended", "qkv", "attention_out"),
    "dots": ("attended", "qkv", "attention_out", "mlp_up"),
}


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The numbers that define a decoder; each architecture adds its own."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Number of heads of keys and values, which divides ``num_heads``."""
    head_dim: int
    """Width of one attention head."""
    mlp_size: int
    max_positions: int | None
    """Longest sequence the model can read; None: any."""
    activation: str
    epsilon: float
    tied: bool
    """Whether the output embedding is the input embedding."""
    embedding_dropout: float
    attention_dropout: float
    residual_dropout: float
    initializer_range: float
    """Standard deviation of new weights."""
    layer_kinds: tuple[LayerKind, ...]
    """The kind of each layer."""
    final_softcap: float | None = None
    """Bound of the logits, which approach it as a tanh does; None: unbounded."""
    lora: LoraSection | None = None
    """The adapters of the layers; None: there are none."""

    # Settings that change the results and are not implemented, with the value that is accepted.
    only: ClassVar[Mapping[str, Any]] = {
        "add_cross_attention": False,
        "is_causal": True,
        "is_encoder_decoder": False,
        "per_layer_config": {},
        "pruned_heads": {},
    }

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"the {self.num_heads} attention heads are not a multiple of the "
                f"{self.num_kv_heads} heads of keys and values."
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

    def segments(
        self, begin: int = 0, end: int | None = None
    ) -> tuple[tuple[tuple[LayerKind, ...], int], ...]:
        """Successive parts of the depth: the kinds of a period, and how often it repeats.

        Args:
            begin: number of layers before them.
            end: number of layers before their end; None: all.
        """
        left, found = self.layer_kinds[begin:end], []
        while left:
            covered = {n: _covered(left, n) for n in range(1, len(left) // 2 + 1)}
            period = max(covered, key=lambda n: covered[n], default=1)
            layers = covered.get(period) or 1
            found.append((left[:period], layers // period))
            left = left[layers:]
        return tuple(found)

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
            "kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "mlp": self.mlp_size,
            "rank": 0 if self.lora is None else self.lora.r,
        }


def _covered(kinds: tuple[LayerKind, ...], period: int) -> int:
    """How many of the kinds the first ``period`` and their repetitions are; 0 if there are none."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(kinds, kinds[period:], strict=False))
    repetitions = sum(1 for _ in same) // period
    return period * (1 + repetitions) if repetitions else 0


def split_evenly(hidden_size: int, heads: int) -> int:
    """The width of one of the heads that split the hidden size.

    Raises:
        UserError: the heads do not divide it.
    """
    if hidden_size % heads:
        raise UserError(
            f"the hidden size {hidden_size} is not a multiple of the {heads} attention heads."
        )
    return hidden_size // heads


class Cache(NamedTuple):
    """Keys and values of the tokens already read; those of each sequence end at the same place."""

    key: Float[Array, "layers batch length kv_heads dim"]
    value: Float[Array, "layers batch length kv_heads dim"]
    used: int | Int[Array, ""]
    """Number of filled places, padding included."""
    first: Int[Array, " batch"]
    """Place of each sequence's first token, which follows the padding."""

    @classmethod
    def empty(cls, model: "Decoder", length: int, first: Int[Array, " batch"]) -> "Cache":
        """A cache with ``length`` places."""
        config = model.config
        shape = (config.num_layers, len(first), length, config.num_kv_heads, config.head_dim)
        return cls(jnp.zeros(shape, model.dtype), jnp.zeros(shape, model.dtype), 0, first)

    def repeated(self, times: int) -> "Cache":
        """Each sequence ``times`` times, one after the other."""
        key, value = (jnp.repeat(x, times, axis=1) for x in (self.key, self.value))
        return Cache(key, value, self.used, jnp.repeat(self.first, times))


class ForwardFlops(NamedTuple):
    """Floating-point operations of a forward pass per token."""

    products: int
    """Products with the weights of layers."""
    attention: float
    """Products of queries with keys, and of their weights with values."""
    head: int
    """The logits."""


Norm = LayerNorm | RMSNorm


def embedding(rows: int, config: DecoderConfig, rngs: nnx.Rngs) -> Embedding:
    """A table of ``rows`` vectors of the hidden size."""
    return Embedding(
        rows,
        config.hidden_size,
        embedding_init=nnx.initializers.normal(config.initializer_range),
        rngs=rngs,
    )


def to_logits(
    hidden: Float[Array, "*batch embed"],
    head: Float[Array, "vocab embed"],
    softcap: float | None = None,
) -> Float[Array, "*batch vocab"]:
    """Float32 logits of final hidden states, multiplied in the dtype of the hidden states.

    A ``softcap`` bounds them, see `capped`.
    """
    logits = jnp.einsum(
        "...d,vd->...v",
        hidden,
        head.astype(hidden.dtype),
        precision=precision_of(hidden.dtype),
        preferred_element_type=jnp.float32,
    )
    return capped(logits, softcap)


class Block(nnx.Module):
    """One layer: attention and MLP, each with a residual connection and with norms around it.

    Args:
        norm_1: norm before the attention, or None.
        attention: the attention.
        post_norm_1: norm between the attention and the residual, or None.
        norm_2: norm before the MLP, or None.
        mlp: the MLP.
        post_norm_2: norm between the MLP and the residual, or None.
        dropout_rate: fraction that is dropped of what is added to the residual.
        residual_after_norm: whether each residual starts after the norm instead of before it.
    """

    def __init__(
        self,
        *,
        norm_1: Norm | None,
        attention: SelfAttention,
        post_norm_1: Norm | None = None,
        norm_2: Norm | None,
        mlp: MLP | GatedMLP,
        post_norm_2: Norm | None = None,
        dropout_rate: float = 0.0,
        residual_after_norm: bool = False,
    ):
        self.norm_1, self.attention, self.post_norm_1 = norm_1, attention, post_norm_1
        self.norm_2, self.mlp, self.post_norm_2 = norm_2, mlp, post_norm_2
        self.dropout_rate = dropout_rate
        self.residual_after_norm = residual_after_norm

    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        inputs: AttentionInputs,
        kind: LayerKind,
        dropout_key: PRNGKeyArray | None,
    ) -> tuple[Float[Array, "batch length embed"], KeysAndValues | None]:
        """Apply the layer."""
        keys = [None] * 3 if dropout_key is None else jax.random.split(dropout_key, 3)
        normed = _normed(self.norm_1, x)
        attended, cache = self.attention(normed, inputs, kind, keys[0])
        attended = _normed(self.post_norm_1, attended)
        x = (normed if self.residual_after_norm else x) + dropout(
            attended, self.dropout_rate, keys[1]
        )
        normed = _normed(self.norm_2, x)
        changed = _normed(self.post_norm_2, self.mlp(normed))
        x = (normed if self.residual_after_norm else x) + dropout(
            changed, self.dropout_rate, keys[2]
        )
        return x, cache


def _normed(
    norm: Norm | None, x: Float[Array, "batch length embed"]
) -> Float[Array, "batch length embed"]:
    return x if norm is None else norm(x)


class Decoder(nnx.Module):
    """A causal language model whose layers are stacked in one module and scanned.

    Parameters are created in float32; ``dtype`` is that of the computation. Softmax, statistics of
    norms and logits are float32 in either case. An architecture says how a checkpoint holds the
    parameters, and what its blocks, final norm and input are.
    """

    prefix: ClassVar[str]
    """Beginning of the names of a checkpoint's tensors, which some checkpoints leave out."""
    ignored: ClassVar[str]
    """Regular expression of checkpoint tensors that are not parameters, such as causal masks."""

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        self.token_embedding = embedding(config.vocab_size, config, rngs)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Block:
            block = self.make_block(config, rngs)
            if config.lora is not None:
                add_adapters(block, self.weights(config), config.lora, rngs)
            return block

        self.blocks = stack(rngs)
        self.final_norm = self.make_norm(config, rngs)
        if not config.tied:
            self.head = embedding(config.vocab_size, config, rngs)

    @classmethod
    def weights(cls, config: Any) -> tuple[Weight, ...]:
        """How a Hugging Face checkpoint holds the parameters, except the untied head."""
        raise NotImplementedError

    @staticmethod
    def make_block(config: Any, rngs: nnx.Rngs) -> Block:
        """One new layer."""
        raise NotImplementedError

    @staticmethod
    def make_norm(config: Any, rngs: nnx.Rngs) -> Norm:
        """A new norm of the hidden size."""
        raise NotImplementedError

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

    def rotations(self, positions: Int[Array, "#batch length"]) -> Mapping[str, Rotation]:
        """The rotary embeddings of these positions, by the names that the layers' kinds use."""
        return {}

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
        last = self.config.num_layers
        return self.hidden_states_after(
            (last,),
            tokens,
            segments=segments,
            positions=positions,
            dropout_key=dropout_key,
            remat=remat,
        )[last]

    def hidden_states_after(
        self, layers: Collection[int], tokens: Int[Array, "batch length"], **options: Any
    ) -> dict[int, Float[Array, "batch length embed"]]:
        """Hidden states after each of some layers, in one pass that ends at the last of them.

        They are numbered as in ``hidden_states`` of transformers: 0 is the input of the first
        layer, and those after the last layer have passed the final norm.

        Args:
            layers: how many layers each of the requested states has passed.
            tokens: token ids.
            **options: those of `hidden_states`.
        """
        return self._trunk(tokens, layers=layers, **options)[0]

    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length vocab"]:
        """Logits of the next token at each position, in float32."""
        return self.logits(self.hidden_states(tokens))

    def logits(self, hidden: Float[Array, "*batch embed"]) -> Float[Array, "*batch vocab"]:
        """Logits of final hidden states, in float32."""
        return to_logits(hidden, self.output_embedding(), self.config.final_softcap)

    def read(
        self, tokens: Int[Array, "batch length"], cache: Cache
    ) -> tuple[Float[Array, "batch length embed"], Cache]:
        """Final hidden states of tokens that follow those in the cache, and the updated cache.

        The first tokens of an empty cache attend to themselves as in training. They may begin with
        padding, whose hidden states mean nothing.

        Args:
            tokens: token ids.
            cache: the previous tokens; updated in place if donated.
        """
        last = self.config.num_layers
        states, cache_or_none = self._trunk(tokens, layers=(last,), cache=cache)
        assert cache_or_none is not None
        return states[last], cache_or_none

    def flops_per_token(self, length: int) -> int:
        """Floating-point operations of one training step per token, forward and backward.

        They are three times those of the forward pass, if all parameters are trained.
        Recomputation is not counted.
        """
        forward = self.forward_flops(length)
        return 3 * (forward.products + forward.head) + round(3 * forward.attention)

    def forward_flops(self, length: int, layers: int | None = None) -> ForwardFlops:
        """Floating-point operations of the forward pass per token.

        2 for each weight of a matrix product (the output embedding is one, the lookup in the input
        embedding is not), and 4 * heads * head width for each key that a query sees: those are
        half of the ``length`` on average, or fewer in a window.

        Args:
            length: tokens of a sequence.
            layers: how many of the first layers are run; None: all.
        """
        config = self.config
        kernels = [weight for weight in self.weights(config) if weight.path.endswith(".kernel")]
        sizes = config.sizes | {"layers": config.num_layers if layers is None else layers}
        products = sum(math.prod(sizes[axis] for axis in weight.axes) for weight in kernels)
        keys = 0.0
        for kind in config.layer_kinds[: sizes["layers"]]:
            window = min(kind.window or length, length)
            keys += window - window**2 / (2 * length)
        return ForwardFlops(
            products=2 * products,
            attention=4 * keys * config.num_heads * config.head_dim,
            head=2 * config.vocab_size * config.hidden_size,
        )

    def _trunk(
        self,
        tokens: Array,
        *,
        layers: Collection[int],
        cache: Cache | None = None,
        segments: Array | None = None,
        positions: Array | None = None,
        dropout_key: PRNGKeyArray | None = None,
        remat: Remat = "none",
    ) -> tuple[dict[int, Array], Cache | None]:
        config = self.config
        start: int | Array = 0
        if cache is not None:
            start = cache.used
            places = jnp.arange(tokens.shape[1] if at_the_beginning(start) else cache.key.shape[2])
            segments = (places[None] >= cache.first[:, None]).astype(jnp.int32)
            positions = start + jnp.arange(tokens.shape[1])[None] - cache.first[:, None]
            positions = jnp.maximum(positions, 0)
        elif positions is None:
            positions = jnp.arange(tokens.shape[1])[None]
        slopes, rotations = self.slopes(), self.rotations(positions)
        input_key, layer_keys = None, None
        if dropout_key is not None:
            input_key, dropout_key = jax.random.split(dropout_key)
            layer_keys = jax.random.split(dropout_key, config.num_layers)
        graphdef, params = nnx.split(self.blocks)

        def layer(kind: LayerKind, carried: tuple[Array, Any], own: Any) -> tuple[Array, Any]:
            params, scale, key, number = own
            x, stored = carried
            inputs = AttentionInputs(scale, slopes, rotations, start, segments, number, stored)
            return nnx.merge(graphdef, params)(x, inputs, kind, key)

        if remat != "none":
            policy = jax.checkpoint_policies.save_only_these_names(*SAVED_BY_POLICY[remat])
            layer = jax.checkpoint(layer, policy=policy, prevent_cse=False, static_argnums=0)

        def period(
            kinds: tuple[LayerKind, ...], carried: tuple[Array, Any], own: Any
        ) -> tuple[tuple[Array, Any], None]:
            """One period of layers."""
            for place, kind in enumerate(kinds):
                one = _select(own, place) if len(kinds) > 1 else own
                carried = layer(kind, carried, one)
            return carried, None

        x = dropout(self.embed(tokens, positions), config.embedding_dropout, input_key)
        carried: Any = (x, None if cache is None else (cache.key, cache.value))
        own = (params, self.softmax_scales(), layer_keys, jnp.arange(config.num_layers))
        begin = 0
        states: dict[int, Array] = {}
        for stop in sorted(layers):
            for kinds, count in config.segments(begin, stop):
                end = begin + len(kinds) * count
                part = _select(own, slice(begin, end))
                if len(kinds) > 1:  # XLA on CPUs copies each reshaped array into the loop.
                    part = _grouped(part, count)
                carried, _ = jax.lax.scan(partial(period, kinds), carried, part)
                begin = end
            states[stop] = self.final_norm(carried[0]) if stop == config.num_layers else carried[0]
        if cache is not None:
            key, value = carried[1]
            cache = Cache(key, value, jnp.int32(start + tokens.shape[1]), cache.first)
        return states, cache


def _select(layers: PyTree[Array], which: int | slice) -> PyTree[Array]:
    """One layer, or some."""
    return jax.tree.map(lambda x: x[which], layers)


def _grouped(layers: PyTree[Array], groups: int) -> PyTree[Array]:
    """The layers in groups of equal size, with an axis of groups before theirs."""
    return jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), layers)
