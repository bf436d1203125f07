"""The tensors of a grafted model, computed one at a time."""

import numpy as np
from jaxtyping import Float

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.graft.chat import ChatTokens

_BLOCK = 1 << 16
"""Values computed at a time in float64."""


def add_difference(adapted: LazyTensor, instruct: LazyTensor, base: LazyTensor) -> LazyTensor:
    """adapted + (instruct - base), computed in float64 and rounded to the type of ``adapted``.

    Where instruct and base are equal, the adapted value stays as it is, bit for bit.
    """
    kind = np.promote_types(adapted.dtype, np.float32)

    def load(rows: slice) -> Float[np.ndarray, "..."]:
        parts = [tensor.read()[rows] for tensor in (adapted, instruct, base)]
        total = np.empty(parts[0].shape, kind)
        flat = total.reshape(-1)
        own, tuned, plain = (part.reshape(-1) for part in parts)
        for start in range(0, flat.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            flat[block] = _sum(own[block], tuned[block], plain[block])
        return total

    return LazyTensor(adapted.shape, kind, load, adapted.name).astype(adapted.dtype)


def add_rows(
    adapted: LazyTensor,
    instruct: LazyTensor,
    base: LazyTensor,
    tokens: ChatTokens,
    in_base: frozenset[int],
) -> LazyTensor:
    """A table with one row per token: the adapted rows, and those of the template's tokens.

    A token of the template that all three models have gets the sum of `add_difference`, one that
    the adapted model or the base lacks gets the instruct model's row.

    Args:
        adapted: Table of the adapted model, without rows for no token.
        instruct: That of the instruct model.
        base: That of the base.
        tokens: The tokens of the template.
        in_base: Ids of tokens that the base has too.
    """
    rows = max(adapted.shape[0], *(id + 1 for id in tokens.ids.values()), 0)

    def load(chosen: slice) -> Float[np.ndarray, "rows width"]:
        table = np.empty((rows, *adapted.shape[1:]), adapted.dtype)
        table[: adapted.shape[0]] = adapted.read()
        for theirs, ours in tokens.ids.items():
            row = instruct.read_rows(theirs, theirs + 1)
            if theirs in in_base and theirs not in tokens.new:
                row = _sum(table[[ours]], row, base.read_rows(theirs, theirs + 1))
            table[ours] = row[0]
        return table[chosen]

    return LazyTensor((rows, *adapted.shape[1:]), adapted.dtype, load, adapted.name)


def _sum(
    adapted: Float[np.ndarray, "..."],
    instruct: Float[np.ndarray, "..."],
    base: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    difference = instruct.astype(np.float64) - base.astype(np.float64)
    return np.where(difference == 0, adapted, adapted.astype(np.float64) + difference)
