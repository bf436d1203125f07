"""Composition of a new table from a method's rows and the source's."""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, Float, Int

from clp_jax.transfer.anchors import AnchorFeatures
from clp_jax.transfer.blockwise import empty_rows, row_slices
from clp_jax.transfer.interface import (
    Contribution,
    Contributors,
    Method,
    Prediction,
    Problem,
    at_once,
)
from clp_jax.transfer.methods import mean_row
from clp_jax.transfer.sums import eigen
from clp_jax.transfer.table import Layout, NewTable, TableRead

FOLDS = 5
"""Number of folds. The shared tokens of each are predicted from those of the other folds."""

TINY = 1e-30
"""The least divisor of an error."""


@dataclass
class Predictions:
    """A method's rows for the missing and for the shared tokens.

    Attributes:
        method: computes rows for tokens that the source lacks.
        basis: the method's input.
        layout: where every row of a new table comes from.
        keep: hold the rows, so that several tables cost one computation and its memory.
    """

    method: Method
    basis: AnchorFeatures
    layout: Layout
    keep: bool = False

    @cached_property
    def missing(self) -> Prediction:
        """The rows of the missing tokens."""
        return self._kept(_ask(self.method, self.basis.problem))

    @cached_property
    def shared(self) -> Prediction:
        """The rows of the shared tokens, see `predict_shared`, with the constants chosen by all."""
        method = partial(self.method, **self.missing.chosen)
        return self._kept(predict_shared(method, self.basis, self.layout))

    def _kept(self, prediction: Prediction) -> Prediction:
        return replace(prediction, blocks=at_once(prediction.rows)) if self.keep else prediction


def new_table(
    predictions: Predictions,
    source: TableRead,
    *,
    source_weight: float,
    match_spread: bool,
    spread_shrinkage: float | None = None,
    by_reliability: bool = False,
) -> NewTable:
    """Compute every row of a new table.

    Args:
        predictions: the method's rows.
        source: the source's rows to copy.
        source_weight: the weight of the source in a shared token's row; the rest is the method's.
            Special tokens, and shared tokens that the method cannot serve, are copied unchanged.
        match_spread: scale the method's rows so that they vary as much as the source's do.
        spread_shrinkage: see `rescale_spread`.
        by_reliability: multiply the weight by the `reliability` of each row.
    """
    layout = predictions.layout
    rows = empty_rows(layout.rows, source.rows.shape[1])
    missing = predictions.missing
    _write(missing, rows, layout.missing)
    mixed = np.zeros(len(layout.copied), bool)
    if source_weight < 1 or by_reliability:
        shared = predictions.shared
        _write(shared, rows, layout.copied)
        mixed[: layout.anchors] = ~unserved(shared)
    if match_spread:
        computed = layout.missing[~unserved(missing)], layout.copied[mixed]
        known = source.rows[: layout.anchors]
        rescale_spread(rows, np.concatenate(computed), known, spread_shrinkage)
    weights, facts = np.where(mixed, np.float32(source_weight), np.float32(1)), {}
    if by_reliability and mixed.any():
        weights[mixed] *= reliability(rows, layout.copied, source.rows, np.flatnonzero(mixed))
        facts = {"source_weight": weights[mixed][np.argsort(layout.copied[mixed])]}
    for part in row_slices(len(mixed)):
        places, known, some = layout.copied[part], source.rows[part], mixed[part]
        rows[places[~some]] = known[~some]
        share = weights[part][some, None]
        rows[places[some]] = share * known[some] + (1 - share) * rows[places[some]]
    if len(layout.padding):
        rows[layout.padding] = 0
        real = layout.rows - len(layout.padding)
        rows[layout.padding] = rows.sum(axis=0, dtype=np.float64) / real
    return NewTable(
        rows,
        _origins(layout, missing, layout.copied[mixed]),
        {**missing.facts, **facts},
        _source_contributors(missing, predictions.basis),
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

    def contributors(k: int) -> Contribution:
        places, weights = found(k)
        return basis.anchor_ids[places], weights

    return contributors


def predict_shared(method: Method, basis: AnchorFeatures, layout: Layout) -> Prediction:
    """The method's rows for the shared tokens, each predicted only from tokens of other folds.

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
    """The method's rows for held-out shared tokens, with their own rows not among the anchors."""
    known = np.isin(basis.anchor_ids, layout.copied_source[: layout.anchors][held_out])
    return _ask(method, basis.problem.without(known)._replace(queries=basis.shared[held_out]))


def _ask(method: Method, problem: Problem) -> Prediction:
    """The method's prediction; the mean row if the method uses features but there is no anchor."""
    count, features = problem.queries.shape
    if features and not len(problem.anchors):
        return replace(mean_row(problem), fallback={"mean": np.ones(count, bool)})
    return method(problem)


def unserved(prediction: Prediction) -> Bool[np.ndarray, " query"]:
    """The queries that the method could not serve, which got the source's mean row."""
    return prediction.fallback.get("mean", np.zeros(prediction.shape[0], bool))


def reliability(
    rows: Float[np.ndarray, "row dim"],
    places: Int[np.ndarray, " copied"],
    source: Float[np.ndarray, "copied dim"],
    predicted: Int[np.ndarray, " anchor"],
) -> Float[np.ndarray, " anchor"]:
    """How far shared tokens mean the same in both languages, from 0 to 1.

    With e the squared error of a row that was predicted without its token, relative to the squared
    norm of the source's, the reliability is min(1, median(e) / e): 1 for half of the tokens.

    Args:
        rows: the new table, with the predicted rows.
        places: where in it the row of each copied token is.
        source: the source's rows of the same tokens.
        predicted: those of the tokens whose row was predicted.
    """
    errors = np.empty(len(predicted))
    for part in row_slices(len(predicted)):
        known, found = source[predicted[part]], rows[places[predicted[part]]]
        missed = np.square(found - known).sum(axis=1, dtype=np.float64)
        errors[part] = missed / np.maximum(np.square(known).sum(axis=1), TINY)
    usual = max(np.median(errors), TINY)
    return (usual / np.maximum(errors, usual)).astype(np.float32)


def rescale_spread(
    rows: Float[np.ndarray, "row dim"],
    computed: Int[np.ndarray, " computed"],
    known: Float[np.ndarray, "known dim"],
    shrinkage: float | None = None,
) -> None:
    """Scale computed rows about their mean so that they vary as much as the known rows.

    Averages of rows are closer together than the rows themselves, so most methods' rows vary too
    little. With the variances v of the known rows and u of the computed rows along the principal
    directions of the known rows, and their means V and U, each direction is scaled by

        sqrt((v + k V) / (u + k U))

    for the shrinkage k; without one, which is k without bound, all are by sqrt(V / U). The rows are
    changed in place.
    """
    if not (len(computed) and len(known)):
        return
    everything, axes = np.arange(len(known)), None
    if shrinkage is not None:
        axes = _principal_directions(known)
    center, found = _variances(rows, computed, axes)
    _, wanted = _variances(known, everything, axes)
    usual, mean = found.mean(), wanted.mean()
    if not usual:
        return
    if axes is None:
        scale = np.float32(np.sqrt(mean / usual))
    else:
        scales = np.sqrt((wanted + shrinkage * mean) / (found + shrinkage * usual))
        scale = ((axes * scales) @ axes.T).astype(np.float32)
    for part in row_slices(len(computed)):
        away = rows[computed[part]] - center
        rows[computed[part]] = center + (away * scale if axes is None else away @ scale)


def _variances(
    table: Float[np.ndarray, "row dim"],
    ids: Int[np.ndarray, " chosen"],
    axes: Float[np.ndarray, "dim direction"] | None,
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " direction"]]:
    """The mean of some rows, and their variances along these axes, or along the dimensions."""
    parts = [ids[part] for part in row_slices(len(ids))]
    mean = sum(table[part].sum(axis=0, dtype=np.float64) for part in parts) / len(ids)
    center, squares = mean.astype(np.float32), np.zeros(table.shape[1])
    for part in parts:
        away = table[part] - center
        squares += np.square(away if axes is None else away @ axes).sum(axis=0, dtype=np.float64)
    return center, squares / len(ids)


def _principal_directions(table: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "dim dim"]:
    """The eigenvectors of the rows' covariance, as columns."""
    dim = table.shape[1]
    mean, squares = table.mean(axis=0, dtype=np.float64), np.zeros((dim, dim))
    for part in row_slices(len(table)):
        away = table[part] - mean.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # The score or the rows will show it.
            squares += away.T @ away
    return eigen(squares)[1].astype(np.float32)
