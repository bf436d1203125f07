"""A method's rows and the source's, composed to a new table."""

import numpy as np
from jaxtyping import Bool, Float, Int

from clp_jax.transfer.bases import Basis
from clp_jax.transfer.layout import Layout
from clp_jax.transfer.problem import Contributors, Method, Prediction, Problem
from clp_jax.transfer.table import NewTable, TableRead

FOLDS = 5
"""Shared tokens are predicted from other shared tokens only: in so many parts, each in turn."""


def new_table(
    method: Method,
    basis: Basis,
    source: TableRead,
    layout: Layout,
    *,
    copy_share: float,
    match_norms: bool,
) -> NewTable:
    """Compute every row of a new table.

    Args:
        method: how rows are computed for tokens that the source lacks.
        basis: what it starts from.
        source: the rows of the source that are copied.
        layout: where every row comes from.
        copy_share: how much of a shared token's row is the source's; the rest is the method's.
            Special tokens, and shared tokens that the method cannot serve, are copied whole.
        match_norms: make the method's rows as different from each other as the source's are.
    """
    missing = _ask(method, basis.problem)
    shared = None if copy_share == 1 else predict_shared(method, basis, layout)
    if match_norms:
        missing, shared = match_spread(missing, shared, source.rows[: layout.anchors])

    rows = np.zeros((layout.rows, source.rows.shape[1]), np.float32)
    rows[layout.copied] = source.rows
    rows[layout.missing] = missing.rows
    if shared is not None:
        served = ~unserved(shared)
        places = layout.copied[: layout.anchors][served]
        rows[places] = copy_share * rows[places] + (1 - copy_share) * shared.rows[served]
    if len(layout.padding):
        real = layout.rows - len(layout.padding)
        rows[layout.padding] = rows.sum(axis=0, dtype=np.float64) / real
    return NewTable(
        rows, _origins(layout, missing), missing.facts, _source_contributors(missing, basis)
    )


def _origins(layout: Layout, missing: Prediction) -> dict[str, Int[np.ndarray, "rows_of_it"]]:
    failed = np.zeros(len(layout.missing), bool)
    for mask in missing.fallback.values():
        failed |= mask
    return {
        "copied": np.setdiff1d(layout.copied, layout.roles),
        "role": layout.roles,
        "combined": layout.missing[~failed],
        **{f"fallback: {name}": layout.missing[mask] for name, mask in missing.fallback.items()},
        "padding": layout.padding,
    }


def _source_contributors(prediction: Prediction, basis: Basis) -> Contributors | None:
    found = prediction.contributors
    if found is None:
        return None

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
        places, weights = found(k)
        return basis.anchor_ids[places], weights

    return contributors


def predict_shared(method: Method, basis: Basis, layout: Layout) -> Prediction:
    """What the method makes of the shared tokens, each predicted from those of other folds only.

    Where the anchors are not the shared tokens, nothing needs to be hidden.
    """
    if not basis.hide:
        return _ask(method, basis.problem._replace(queries=basis.shared))
    fold = np.arange(layout.anchors) % FOLDS
    rows = np.empty((layout.anchors, basis.problem.rows.shape[1]), np.float32)
    failed: dict[str, np.ndarray] = {}
    for part in range(FOLDS):
        inside = fold == part
        prediction = predict_hidden(method, basis, layout, inside)
        rows[inside] = prediction.rows
        for name, mask in prediction.fallback.items():
            failed.setdefault(name, np.zeros(layout.anchors, bool))[inside] = mask
    return Prediction(rows, failed)


def predict_hidden(
    method: Method, basis: Basis, layout: Layout, hidden: Bool[np.ndarray, "anchor"]
) -> Prediction:
    """What the method makes of some shared tokens, with none of their rows among the anchors."""
    kept = ~np.isin(basis.anchor_ids, layout.copied_source[: layout.anchors][hidden])
    problem = basis.problem
    return _ask(
        method,
        problem._replace(
            queries=basis.shared[hidden], anchors=problem.anchors[kept], rows=problem.rows[kept]
        ),
    )


def _ask(method: Method, problem: Problem) -> Prediction:
    """The method's answer; where it looks at features but no anchor has any, the mean row."""
    count, features = problem.queries.shape
    if features and not len(problem.anchors):
        return Prediction(np.tile(problem.mean, (count, 1)), {"mean": np.ones(count, bool)})
    return method(problem)


def unserved(prediction: Prediction) -> Bool[np.ndarray, "query"]:
    """The queries of which the method knew nothing, so that they got the source's mean row."""
    return prediction.fallback.get("mean", np.zeros(len(prediction.rows), bool))


def match_spread(
    missing: Prediction, shared: Prediction | None, known: Float[np.ndarray, "known dim"]
) -> tuple[Prediction, Prediction | None]:
    """Scale how far a method's rows lie from their mean, in the root mean square, to known rows.

    Means of rows lie closer together than the rows do, so most methods' rows are too alike.
    """
    predictions = [missing] if shared is None else [missing, shared]
    rows = np.concatenate([p.rows[~unserved(p)] for p in predictions])
    if not (len(rows) and len(known)):
        return missing, shared
    center = rows.mean(axis=0)
    spread, wanted = (np.sqrt(np.mean((t - t.mean(axis=0)) ** 2)) for t in (rows, known))
    scale = wanted / spread if spread else 1.0
    for prediction in predictions:
        served = ~unserved(prediction)
        prediction.rows[served] = center + (prediction.rows[served] - center) * scale
    return missing, shared
