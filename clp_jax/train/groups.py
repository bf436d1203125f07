"""Groups of parameters and what is theirs: learning rates, gradients, the axes of matrices."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float, PyTree

from clp_jax.config import OptimizerSection, ParameterGroup

GROUPS: Mapping[str, ParameterGroup] = {
    "token_embedding": "embeddings",
    "embedding_norm": "embeddings",
    "head": "embeddings",
    "position_embedding": "positions",
    "blocks": "layers",
    "final_norm": "final_norm",
}
"""The group of each part of a model."""


class Matrix(NamedTuple):
    """Which axes of a parameter make a matrix; along all others there are several of them."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


# Axis 0 is that of the layers. Queries, keys and values are matrices of their own.
KERNELS: Mapping[str, Matrix] = {
    "qkv": Matrix((1,), (3, 4)),
    "out": Matrix((1, 2), (3,)),
    "up": Matrix((1,), (2,)),
    "down": Matrix((1,), (2,)),
}


def trained(params: Mapping[str, PyTree], section: OptimizerSection) -> dict[str, PyTree]:
    """The parts of the parameters whose learning rate is not always zero."""
    return {part: tree for part, tree in params.items() if section.rates.get(GROUPS[part], 1)}


def group_norms(gradients: Mapping[str, PyTree]) -> dict[str, Float[Array, ""]]:
    """The norm of the gradients of each group that has some."""
    groups: dict[str, list[Any]] = {}
    for part, tree in gradients.items():
        groups.setdefault(GROUPS[part], []).append(tree)
    return {group: optax.tree_utils.tree_norm(trees) for group, trees in groups.items()}
