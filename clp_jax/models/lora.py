"""LoRA (Hu et al. 2021, arXiv 2106.09685): products of low rank, added to those of the layers.

A kernel W of a layer stays as it is; what is trained is a pair of narrow kernels A and B, and the
layer computes x W + (alpha / r) x A B. B begins at zero, so training begins at the model itself.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from clp_jax.config import LoraSection
from clp_jax.errors import UserError
from clp_jax.models.layers import multiply
from clp_jax.models.weights import Weight

PART = "lora"
"""The name of a layer's adapter among its parameters."""
PREFIX = "base_model.model."
"""Beginning of the names of a PEFT adapter's tensors."""


class Adapter(nnx.Module):
    """The narrow kernels of one layer.

    Args:
        inputs: sizes of the layer's input axes.
        outputs: sizes of its output axes.
        lora: rank and scale.
        rngs: random streams of the initializers.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: Sequence[int], lora: LoraSection, *, rngs: nnx.Rngs
    ):
        # The limit is that of torch.nn.Linear, with which PEFT begins.
        uniform = nnx.initializers.variance_scaling(
            1 / 3, "fan_in", "uniform", in_axis=tuple(range(len(inputs))), out_axis=-1
        )
        self.a = nnx.Param(uniform(rngs.params(), (*inputs, lora.r), jnp.float32))
        self.b = nnx.Param(jnp.zeros((lora.r, *outputs), jnp.float32))
        self.scale = lora.scale

    def __call__(self, x: Float[Array, "batch length *in"]) -> Float[Array, "batch length *out"]:
        """What the adapter adds to the layer's output, in the dtype of ``x``."""
        narrow = multiply(x, self.a[...], self.a[...].ndim - 1)
        return self.scale * multiply(narrow, self.b[...], 1)


def adapted_kernels(weights: Sequence[Weight], lora: LoraSection) -> tuple[Weight, ...]:
    """The rows of a weight table that get an adapter.

    Raises:
        UserError: a target is not the name of a linear layer, or the end of one.
    """
    modules = {
        weight: "." + weight.name.removesuffix(".weight")
        for weight in weights
        if weight.path.endswith(".kernel")
    }
    if lora.target_modules == "all-linear":
        return tuple(modules)
    for target in lora.target_modules:
        if not any(name.endswith(f".{target}") for name in modules.values()):
            known = sorted({name.rpartition(".")[2] for name in modules.values()})
            raise UserError(
                f"lora.target_modules names {target}, but the model's linear layers are "
                f"{', '.join(known)}: choose among those, or all-linear."
            )
    ends = tuple(f".{target}" for target in lora.target_modules)
    return tuple(weight for weight, name in modules.items() if name.endswith(ends))


def adapter_weights(weights: Sequence[Weight], lora: LoraSection) -> tuple[Weight, ...]:
    """One row for each narrow kernel, under the names and in the layout of a PEFT adapter."""
    rows = []
    for kernel in adapted_kernels(weights, lora):
        inputs, outputs = kernel_sides(kernel)
        path, name = kernel.path.removesuffix("kernel"), kernel.name.removesuffix("weight")
        within = " ".join(axis for axis in kernel.axes if axis in outputs)
        rows += [
            Weight(
                f"{path}{PART}.a",
                f"{PREFIX}{name}lora_A.weight",
                f"rank ({' '.join(inputs)}) -> {' '.join(inputs)} rank",
            ),
            Weight(
                f"{path}{PART}.b",
                f"{PREFIX}{name}lora_B.weight",
                f"({' '.join(outputs)}) rank -> rank {within}",
            ),
        ]
    return tuple(rows)


def kernel_sides(kernel: Weight) -> tuple[list[str], list[str]]:
    """The axes of a kernel's input and of its output, in the checkpoint's order."""
    first, second = kernel.groups
    return (first, second) if kernel.axes[1] in first else (second, first)


def add_adapters(
    block: nnx.Module, weights: Sequence[Weight], lora: LoraSection, rngs: nnx.Rngs
) -> None:
    """Give the layers of a block their adapters."""
    for kernel in adapted_kernels(weights, lora):
        layer: Any = reduce(getattr, kernel.path.split(".")[1:-1], block)
        layer.lora = Adapter(layer.in_features, layer.out_features, lora, rngs=rngs)


def adapters(params: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The adapters among parameters, a nested dict, with the path to each."""
    found = {}
    for name, tree in params.items():
        if name == PART:
            found[name] = tree
        elif isinstance(tree, Mapping) and (inner := adapters(tree)):
            found[name] = inner
    return found


def joined(params: Mapping[str, PyTree], others: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Nested dicts as one; where both have an array, it is that of ``others``."""
    both = dict(params)
    for name, tree in others.items():
        nested = isinstance(tree, Mapping) and name in both
        both[name] = joined(both[name], tree) if nested else tree
    return both


def merge_adapters(params: Mapping[str, PyTree], lora: LoraSection) -> dict[str, PyTree]:
    """The parameters of the same model without adapters: W + (alpha / r) A B, in float32."""
    merged = {}
    for name, tree in params.items():
        if not isinstance(tree, Mapping):
            merged[name] = tree
        elif PART in tree:
            merged[name] = _merge_layer(tree, lora.scale)
        else:
            merged[name] = merge_adapters(tree, lora)
    return merged


@partial(jax.jit, static_argnums=1)
def _merge_layer(layer: Mapping[str, PyTree], scale: float) -> dict[str, Array]:
    product = jax.vmap(partial(jnp.tensordot, axes=1, precision="highest"))
    added = product(layer[PART]["a"], layer[PART]["b"])
    others = {name: array for name, array in layer.items() if name != PART}
    return others | {"kernel": layer["kernel"] + scale * added}
