"""The layers with parameters that architectures share: embeddings, products, norms, MLPs.

Parameters are float32 and activations often bfloat16. A gradient is a sum over all tokens of a
batch, and bfloat16 has a significand of eight bits: a sum of a thousand similar numbers stops
growing. So each layer sums the gradients of its parameters in the dtype of the parameters, on each
device and between devices. A parameter that is cast before it is looked up, multiplied or added
would have its gradient summed in bfloat16.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from clp_jax.attention import precision_of
from clp_jax.mesh import shard_by_width

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


class Embedding(nnx.Embed):
    """A table of vectors."""

    def __call__(  # type: ignore[override]
        self, ids: Int[Array, "batch length"]
    ) -> Float[Array, "batch length embed"]:
        """The float32 rows of these ids; each device gets its columns of all rows.

        No table is sent between devices; `Decoder.enter` turns the rows into activations.
        """
        return shard_by_width(jnp.take(self.embedding[...], ids, axis=0))


class Linear(nnx.LinearGeneral):
    """A product with a kernel over the last axes, plus an adapter's and a bias if it has them."""

    lora: Callable[[Array], Array] | None = None
    """The adapter of `clp_jax.models.lora`, which computes from the layer's input, or None."""

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "batch length *in"]
    ) -> Float[Array, "batch length *out"]:
        """Apply the layer in the dtype of ``x``."""
        product = multiply(x, self.kernel[...], len(self.in_features))
        if self.lora is not None:
            product = product + self.lora(x)
        if self.bias is None:
            return product
        return (product.astype(jnp.float32) + self.bias[None, None]).astype(x.dtype)


class LayerNorm(nnx.LayerNorm):
    """A layer norm that computes in float32."""

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "batch length embed"]
    ) -> Float[Array, "batch length embed"]:
        """Normalise each vector; the result has the dtype of ``x``."""
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Division by the root mean square over the last axes, and a factor for each of its elements.

    Args:
        shape: sizes of the axes.
        epsilon: added to the mean square.
        offset: added to the stored factors, which begin at 1 - ``offset``.
    """

    def __init__(self, *shape: int, epsilon: float, offset: float = 0.0):
        self.scale = nnx.Param(jnp.full(shape, 1 - offset, jnp.float32))
        self.epsilon = epsilon
        self.offset = offset

    def __call__(self, x: Float[Array, "batch length *norm"]) -> Float[Array, "batch length *norm"]:
        """Normalise in float32; the result has the dtype of ``x``."""
        scale = self.scale[...] + self.offset
        wide = x.astype(jnp.float32)
        axes = tuple(range(-scale.ndim, 0))
        square = jnp.mean(wide**2, axis=axes, keepdims=True)
        scale = jnp.expand_dims(scale, tuple(range(x.ndim - scale.ndim)))
        return (wide * jax.lax.rsqrt(square + self.epsilon) * scale).astype(x.dtype)


class MLP(nnx.Module):
    """Two linear layers with an activation between them."""

    def __init__(
        self,
        embed: int,
        width: int,
        activation: str,
        *,
        up_init: nnx.Initializer,
        down_init: nnx.Initializer,
        rngs: nnx.Rngs,
    ):
        self.up = Linear(embed, width, kernel_init=up_init, rngs=rngs)
        self.down = Linear(width, embed, kernel_init=down_init, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Apply the layers to each position."""
        return self.down(ACTIVATIONS[self.activation](checkpoint_name(self.up(x), "mlp_up")))


class GatedMLP(nnx.Module):
    """A linear layer whose input is another one's output times an activated third one's."""

    def __init__(
        self,
        embed: int,
        width: int,
        activation: str,
        *,
        init: nnx.Initializer,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        linear = partial(Linear, kernel_init=init, use_bias=bias, rngs=rngs)
        self.gate, self.up = linear(embed, width), linear(embed, width)
        self.down = linear(width, embed)
        self.activation = activation

    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length embed"]:
        """Apply the layers to each position."""
        gate, up = (checkpoint_name(layer(x), "mlp_up") for layer in (self.gate, self.up))
        return self.down(ACTIVATIONS[self.activation](gate) * up)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def multiply(
    x: Float[Array, "batch length *in"], kernel: Float[Array, "..."], axes: int
) -> Float[Array, "batch length *out"]:
    """The product over the last ``axes`` axes of ``x`` and the first of the kernel, in x's dtype.

    The kernel's gradient has the kernel's dtype, even before it is summed over devices; autodiff
    would first round it to the dtype of ``x``.
    """
    return _product(x, kernel, axes)


def _product(x: Array, kernel: Array, axes: int | tuple[tuple[int, ...], ...]) -> Array:
    return jnp.tensordot(x, kernel.astype(x.dtype), axes, precision=precision_of(x.dtype))


def _forward(x: Array, kernel: Array, axes: int) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel, axes), (x, kernel)


def _backward(axes: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    tokens = tuple(range(x.ndim - axes))
    outputs = (tuple(range(len(tokens), gradient.ndim)), tuple(range(axes, kernel.ndim)))
    of_kernel = jnp.tensordot(
        x,
        gradient,
        (tokens, tokens),
        precision=precision_of(x.dtype),
        preferred_element_type=kernel.dtype,
    )
    return _product(gradient, kernel, outputs), of_kernel


multiply.defvjp(_forward, _backward)
