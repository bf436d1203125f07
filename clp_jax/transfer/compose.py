"""A method's rows and the source's, composed to a new table."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from clp_jax.transfer.anchors import AnchorFeatures
from clp_jax.transfer.blockwise import empty_rows, row_slices
from clp_jax.transfer.methods import mean_row
from clp_jax.transfer.methods.interface import Contributors, Method, Prediction, Problem
from clp_jax.transfer.table import Layout, NewTable, TableRead

FOLDS = 5
"""Shared tokens are predicted from other shared tokens only: in so many parts, each in turn."""


def new_table(
    method: Method,
    basis: AnchorFeatures,
    source: TableRead,
    layout: Layout,
    *,
    source_weight: float,
    match_spread: bool,
) -> NewTable:
    """Compute every row of a new table.

    Args:
        method: how rows are computed for tokens that the source lacks.
        basis: what it starts from.
        source: the rows of the source that are copied.
        layout: where every row comes from.
        source_weight: how much of a shared token's row is the source's; the rest is the method's.
            Special tokens, and shared tokens that the method cannot serve, are copied whole.
        match_spread: make the method's rows as different from each other as the source's are.
    """
    rows = empty_rows(layout.rows, source.rows.shape[1])
    missing = _ask(method, basis.problem)
    _write(missing, rows, layout.missing)
    mixed = np.zeros(len(layout.copied), bool)
    if source_weight < 1:
        shared = predict_shared(method, basis, layout)
        _write(shared, rows, layout.copied)
        mixed[: layout.anchors] = ~unserved(shared)
    if match_spread:
        computed = layout.missing[~unserved(missing)], layout.copied[mixed]
        rescale_spread(rows, np.concatenate(computed), source.rows[: layout.anchors])
    for part in row_slices(len(mixed)):
        places, known, some = layout.copied[part], source.rows[part], mixed[part]
        rows[places[~some]] = known[~some]
        rows[places[some]] = source_weight * known[some] + (1 - source_weight) * rows[places[some]]
    if len(layout.padding):
        rows[layout.padding] = 0
        real = layout.rows - len(layout.padding)
        rows[layout.padding] = rows.sum(axis=0, dtype=np.float64) / real
    return NewTable(
        rows,
        _origins(layout, missing, layout.copied[mixed]),
        missing.facts,
        _source_contributors(missing, basis),
    )


def _write(
    prediction: Prediction, rows: Float[np.ndarray, "row dim"], places: Int[np.ndarray, " query"]
) -> None:
    for positions, block in prediction.blocks():
        rows[places[positions]] = block


def _origins(
    layout: Layout, missing: Prediction, mixed: Int[np.ndarray, " mixed"]
) -> dict[str, Int[np.ndarray, " rows_of_it"]]:
    failed = np.zeros(len(layout.missing), bool)
    for mask in missing.fallback.values():
        failed |= mask
    return {
        "copied": np.setdiff1d(layout.copied, np.concatenate([layout.roles, mixed])),
        "mixed": np.sort(mixed),
        "role": layout.roles,
        "combined": layout.missing[~failed],
        **{f"fallback: {name}": layout.missing[mask] for name, mask in missing.fallback.items()},
        "padding": layout.padding,
    }


def _source_contributors(prediction: Prediction, basis: AnchorFeatures) -> Contributors | None:
    found = prediction.contributors
    if found is None:
        return None

    def contributors(k: int) -> tuple[np.ndarray, np.ndarray]:
        places, weights = found(k)
        return basis.anchor_ids[places], weights

    return contributors


def predict_shared(method: Method, basis: AnchorFeatures, layout: Layout) -> Prediction:
    """What the method makes of the shared tokens, each predicted from those of other folds only.

    Where the anchors are not the shared tokens, nothing needs to be held out.
    """
    if not basis.hold_out:
        return _ask(method, basis.problem._replace(queries=basis.shared))
    fold = np.arange(layout.anchors) % FOLDS
    parts = [
        (np.flatnonzero(fold == part), predict_held_out(method, basis, layout, fold == part))
        for part in range(min(FOLDS, layout.anchors))
    ]
    failed: dict[str, np.ndarray] = {}
    for ids, prediction in parts:
        for name, mask in prediction.fallback.items():
            failed.setdefault(name, np.zeros(layout.anchors, bool))[ids] = mask

    def blocks():
        for ids, prediction in parts:
            for positions, rows in prediction.blocks():
                yield ids[positions], rows

    return Prediction((layout.anchors, basis.problem.rows.shape[1]), blocks, failed)


def predict_held_out(
    method: Method, basis: AnchorFeatures, layout: Layout, held_out: Bool[np.ndarray, " anchor"]
) -> Prediction:
    """What the method makes of some shared tokens, with none of their rows among the anchors."""
    known = np.isin(basis.anchor_ids, layout.copied_source[: layout.anchors][held_out])
    return _ask(method, basis.problem.without(known)._replace(queries=basis.shared[held_out]))


def _ask(method: Method, problem: Problem) -> Prediction:
    """The method's answer; where it looks at features but no anchor has any, the mean row."""
    count, features = problem.queries.shape
    if features and not len(problem.anchors):
        return replace(mean_row(problem), fallback={"mean": np.ones(count, bool)})
    return method(problem)


def unserved(prediction: Prediction) -> Bool[np.ndarray, " query"]:
    """The queries of which the method knew nothing, so that they got the source's mean row."""
    return prediction.fallback.get("mean", np.zeros(prediction.shape[0], bool))


def rescale_spread(
    rows: Float[np.ndarray, "row dim"],
    computed: Int[np.ndarray, " computed"],
    known: Float[np.ndarray, "known dim"],
) -> None:
    """Scale how far computed rows lie from their mean, in the root mean square, to known rows.

    Means of rows lie closer together than the rows do, so most methods' rows are too alike. The
    rows are changed in place.
    """
    if not (len(computed) and len(known)):
        return
    center, spread = _spread(rows, computed)
    _, wanted = _spread(known, np.arange(len(known)))
    scale = np.float32(wanted / spread if spread else 1)
    for part in row_slices(len(computed)):
        places = computed[part]
        rows[places] = center + (rows[places] - center) * scale


def _spread(
    table: Float[np.ndarray, "row dim"], ids: Int[np.ndarray, " chosen"]
) -> tuple[Float[np.ndarray, " dim"], float]:
    """The mean of some rows, and their distance from it, in the root mean square of a value."""
    parts = [ids[part] for part in row_slices(len(ids))]
    mean = sum(table[part].sum(axis=0, dtype=np.float64) for part in parts) / len(ids)
    center = mean.astype(np.float32)
    squares = sum(np.square(table[part] - center).sum(dtype=np.float64) for part in parts)
    return center, float(np.sqrt(squares / (len(ids) * table.shape[1])))
