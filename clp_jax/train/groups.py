"""Groups of parameters: what a learning rate of its own can be given to."""

from collections.abc import Mapping
from typing import Any

import optax
from jaxtyping import Array, Float, PyTree

from clp_jax.config import ParameterGroup

GROUPS: Mapping[str, ParameterGroup] = {
    "token_embedding": "embeddings",
    "embedding_norm": "embeddings",
    "head": "embeddings",
    "position_embedding": "positions",
    "blocks": "layers",
    "final_norm": "final_norm",
}
"""The group of each part of a model."""


def group_norms(gradients: Mapping[str, PyTree]) -> dict[str, Float[Array, ""]]:
    """The norm of the gradients of each group that has some."""
    groups: dict[str, list[Any]] = {}
    for part, tree in gradients.items():
        groups.setdefault(GROUPS[part], []).append(tree)
    return {group: optax.tree_utils.tree_norm(trees) for group, trees in groups.items()}
