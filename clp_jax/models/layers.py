"""The layers with parameters that every architecture uses: embeddings, products, norms.

Parameters are float32 and activations often bfloat16. A gradient is a sum over all tokens of a
batch, and bfloat16 has a significand of eight bits: a sum of a thousand similar numbers stops
growing. So each layer sums the gradients of its parameters in the dtype of the parameters, on each
device and between devices. A parameter that is cast before it is looked up, multiplied or added
would have its gradient summed in bfloat16.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from clp_jax.attention import precision_of
from clp_jax.mesh import shard_by_width


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
    """A product with a kernel over the last axes, plus a bias."""

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "batch length *in"]
    ) -> Float[Array, "batch length *out"]:
        """Apply the layer in the dtype of ``x``."""
        assert self.bias is not None
        product = multiply(x, self.kernel[...], len(self.in_features))
        return (product.astype(jnp.float32) + self.bias[...]).astype(x.dtype)


class LayerNorm(nnx.LayerNorm):
    """A layer norm that computes in float32."""

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "batch length embed"]
    ) -> Float[Array, "batch length embed"]:
        """Normalise each vector; the result has the dtype of ``x``."""
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


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
