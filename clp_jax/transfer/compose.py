"""A method's rows and the source's, composed to a new table."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from clp_jax.transfer.bases import Basis
from clp_jax.transfer.layout import Layout
from clp_jax.transfer.problem import Method, Prediction
from clp_jax.transfer.table import NewTable, TableRead

FOLDS = 5
"""Shared tokens are predicted from other shared tokens only: in so many parts, each in turn."""


def new_table(
    method: Method,
    basis: Basis,
    source: TableRead,
    layout: Layout,
    *,
    copy: float,
    match_norms: bool,
) -> NewTable:
    """Compute every row of a new table.

    Args:
        method: how rows are computed for tokens that the source lacks.
        basis: what it starts from.
        source: the rows of the source that are copied.
        layout: where every row comes from.
        copy: how much of a shared token's row is the source's; the rest is the method's. Special
            tokens, and shared tokens that the method cannot serve, are copied whole.
        match_norms: make the method's rows as different from each other as the source's are.
    """
    missing = method(basis.problem)
    served = ~unserved(missing)
    shared = None if copy == 1 else predict_shared(method, basis, layout)
    if match_norms:
        known = missing.rows[served]
        if shared is not None:
            known = np.concatenate([known, shared.rows[~unserved(shared)]])
        matched = spread_matcher(known, source.rows[: layout.anchors])
        missing.rows[served] = matched(missing.rows[served])

    rows = np.zeros((layout.rows, source.rows.shape[1]), np.float32)
    rows[layout.copied] = source.rows
    rows[layout.missing] = missing.rows
    if shared is not None:
        good = ~unserved(shared)
        own = matched(shared.rows[good]) if match_norms else shared.rows[good]
        places = layout.copied[: layout.anchors][good]
        rows[places] = copy * rows[places] + (1 - copy) * own
    if len(layout.padding):
        real = layout.rows - len(layout.padding)
        rows[layout.padding] = rows.sum(axis=0, dtype=np.float64) / real
    return NewTable(rows, _origins(layout, missing, served), missing.facts)
