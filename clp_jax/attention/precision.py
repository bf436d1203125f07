"""The precision of matrix products."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def precision_of(dtype: DTypeLike) -> jax.lax.Precision:
    """Full precision for float32, which TPUs and GPUs otherwise multiply in fewer bits."""
    exact = jnp.dtype(dtype) == jnp.float32
    return jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT
