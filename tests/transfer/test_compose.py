from dataclasses import replace

import numpy as np
import pytest

from clp_jax.transfer.anchors import TableInputs
from clp_jax.transfer.compose import (
    Predictions,
    new_table,
    predict_held_out,
    predict_shared,
    reliability,
    rescale_spread,
)
from clp_jax.transfer.interface import Prediction, at_once


def nearest_row(problem):
    """A method whose every answer shows from where it is: the row of the anchor nearest by."""
    distances = np.linalg.norm(problem.queries[:, None] - problem.anchors[None], axis=2)
    ids = distances.argmin(axis=1)
    rows = problem.rows_of(ids)
    return Prediction(
        rows.shape,
        at_once(rows),
        contributors=lambda k: (ids[:, None], np.ones((len(ids), 1), np.float32)),
    )


def with_failures(problem):
    """The first query is not served, the last only by another method."""
    rows = nearest_row(problem).rows
    unknown, other = np.zeros((2, len(rows)), bool)
    unknown[0] = other[-1] = True
    rows[0] = problem.mean
    return Prediction(rows.shape, at_once(rows), {"mean": unknown, "other": other}, {"found": 1})


def compose(inputs, method=nearest_row, source_weight=1.0, match_spread=False, **more):
    predictions = Predictions(method, inputs.helper_rows(), inputs.layout)
    return new_table(
        predictions, inputs.source, source_weight=source_weight, match_spread=match_spread, **more
    )


def test_rows_are_copied_bit_for_bit_and_computed(table_inputs, layout):
    table, source = compose(table_inputs), table_inputs.source_tensor.read()
    np.testing.assert_array_equal(table.rows[layout.copied], source[layout.copied_source])
    expected = nearest_row(table_inputs.helper_rows().problem).rows
    np.testing.assert_array_equal(table.rows[layout.missing], expected)
    real = np.delete(table.rows, layout.padding, axis=0)
    np.testing.assert_allclose(table.rows[layout.padding], [real.mean(axis=0)], atol=1e-6)


def test_every_row_has_one_origin(table_inputs, layout):
    table = compose(table_inputs, with_failures)
    origins = {name: ids.tolist() for name, ids in table.origins.items()}
    assert origins == {
        "copied": [2, 3, 4, 6, 9, 10],
        "mixed": [],
        "role": [0, 1],
        "combined": [8],
        "fallback: mean": [5],
        "fallback: other": [11],
        "padding": [7],
    }
    assert table.facts == {"found": 1}
    assert table.contributors is None


def test_contributors_are_source_ids(table_inputs, layout):
    table = compose(table_inputs)
    ids, _ = table.contributors(1)
    source = table_inputs.source_tensor.read()
    np.testing.assert_array_equal(source[ids[:, 0]], table.rows[layout.missing])


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_shared_rows_are_mixed_and_special_ones_stay_whole(table_inputs, layout, share):
    table, source = compose(table_inputs, source_weight=share), table_inputs.source_tensor.read()
    computed = predict_shared(nearest_row, table_inputs.helper_rows(), layout).rows
    copied = source[layout.copied_source]
    mixed = share * copied[: layout.anchors] + (1 - share) * computed
    np.testing.assert_allclose(table.rows[layout.copied[: layout.anchors]], mixed, atol=1e-6)
    np.testing.assert_array_equal(table.rows[layout.roles], copied[layout.anchors :])
    assert table.origins["mixed"].tolist() == [2, 3, 4, 6, 9, 10]
    assert table.origins["copied"].tolist() == []


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_less_is_copied_of_rows_that_others_predict_badly(table_inputs, layout, oracle, share):
    table = compose(table_inputs, source_weight=share, by_reliability=True)
    predicted = predict_shared(nearest_row, table_inputs.helper_rows(), layout).rows
    copied = table_inputs.source_tensor.read()[layout.copied_source]
    known, places = copied[: layout.anchors], layout.copied[: layout.anchors]
    weights = share * oracle.reliability(predicted, known)
    assert weights.min() < 0.9 * share
    assert (weights == share).sum() == layout.anchors // 2
    expected = weights[:, None] * known + (1 - weights[:, None]) * predicted
    np.testing.assert_allclose(table.rows[places], expected, atol=1e-6)
    np.testing.assert_array_equal(table.rows[layout.roles], copied[layout.anchors :])
    order = np.argsort(places)
    assert table.origins["mixed"].tolist() == places[order].tolist()
    np.testing.assert_allclose(table.facts["source_weight"], weights[order], atol=1e-6)


def test_rows_that_are_predicted_without_error_are_copied_whole():
    same = np.ones((4, 3), np.float32)
    found = reliability(same, np.arange(4), same, np.arange(4))
    np.testing.assert_array_equal(found, 1)


def test_shared_tokens_that_the_method_does_not_know_are_copied_whole(table_inputs, layout):
    table, source = compose(table_inputs, with_failures, 0.0), table_inputs.source_tensor.read()
    shared = predict_shared(with_failures, table_inputs.helper_rows(), layout)
    unknown = shared.fallback["mean"]
    assert 0 < unknown.sum() < layout.anchors
    copied = source[layout.copied_source[: layout.anchors]]
    expected = np.where(unknown[:, None], copied, shared.rows)
    anchors = layout.copied[: layout.anchors]
    np.testing.assert_array_equal(table.rows[anchors], expected)
    np.testing.assert_array_equal(table.origins["copied"], np.sort(anchors[unknown]))
    np.testing.assert_array_equal(table.origins["mixed"], np.sort(anchors[~unknown]))


def test_kept_predictions_are_computed_once_for_all_tables(table_inputs, layout):
    asked = []

    def count(problem):
        asked.append(len(problem.queries))
        found = nearest_row(problem)
        return replace(found, blocks=lambda: (asked.append(-1), found.blocks())[1])

    predictions = Predictions(count, table_inputs.helper_rows(), layout, keep=True)
    for share in (1.0, 0.25, 0.0):
        for match_spread in (False, True):
            options = {"source_weight": share, "match_spread": match_spread}
            found = new_table(predictions, table_inputs.source, **options)
            expected = compose(table_inputs, **options)
            np.testing.assert_array_equal(found.rows, expected.rows)
    folds = 5
    assert sorted(asked)[: folds + 1] == [-1] * (folds + 1)
    assert len(asked) == 2 * (folds + 1)


def test_shared_rows_have_the_constants_that_all_anchors_chose(table_inputs, layout):
    def choose(problem, *, near=None):
        given.append(near)
        return replace(nearest_row(problem), chosen={"near": len(problem.anchors)})

    given: list[int | None] = []
    compose(table_inputs, choose, source_weight=0.5)
    assert given == [None, *[layout.anchors] * 5]


def with_changed_row(inputs, id):
    source = inputs.source_tensor.read().copy()
    source[id] += 100
    tensor = type(inputs.source_tensor).of(source)
    return TableInputs(tensor, inputs.helper_tensor, inputs.layout, inputs.mesh, inputs.seed)


def test_a_shared_row_is_predicted_without_its_own(table_inputs, layout):
    """Changing a source row changes what is predicted for other tokens, never for its own."""
    before = predict_shared(nearest_row, table_inputs.helper_rows(), layout).rows
    others_changed = False
    for id in np.unique(layout.copied_source[: layout.anchors]):
        changed = with_changed_row(table_inputs, id).helper_rows()
        after = predict_shared(nearest_row, changed, layout).rows
        own = layout.copied_source[: layout.anchors] == id
        np.testing.assert_array_equal(after[own], before[own])
        others_changed |= (after[~own] != before[~own]).any()
    assert others_changed


def test_held_out_tokens_remove_their_source_row(table_inputs, layout):
    """Tokens 0 and 4 of the layout are one row of the source: to hold_out one hides both."""

    def count(problem):
        assert len(problem.anchors) == len(problem.rows_of(np.arange(4))) == 4
        return nearest_row(problem)

    held_out = np.arange(layout.anchors) == 0
    predict_held_out(count, table_inputs.helper_rows(), layout, held_out)


def test_the_only_shared_token_has_nothing_to_be_predicted_from(table_inputs, layout):
    basis = table_inputs.helper_rows()
    held_out = np.ones(layout.anchors, bool)
    found = predict_held_out(nearest_row, basis, layout, held_out)
    assert found.fallback["mean"].all()
    np.testing.assert_array_equal(found.rows, [basis.problem.mean] * layout.anchors)


def test_nothing_is_held_out_where_the_anchors_are_other_tokens(table_inputs, layout):
    basis = table_inputs.helper_rows()._replace(hold_out=False)
    found = predict_shared(nearest_row, basis, layout)
    np.testing.assert_array_equal(found.rows, basis.problem.rows)


def test_spread_is_matched_about_the_mean_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr("clp_jax.transfer.blockwise.PLACED_ROWS", 16)
    rng = np.random.default_rng(0)
    before, known = (rng.normal(2, s, size=(50, 4)).astype("f4") for s in (0.5, 3))
    after, computed = before.copy(), rng.permutation(50)[:40]
    rescale_spread(after, computed, known)
    others = np.setdiff1d(np.arange(50), computed)
    np.testing.assert_array_equal(after[others], before[others])
    before, after = before[computed], after[computed]
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-5)

    def spread(table):
        return np.sqrt(((table - table.mean(axis=0)) ** 2).mean())

    assert spread(after) == pytest.approx(spread(known), rel=1e-5)
    center = before.mean(axis=0)
    stretched = (before - center) * spread(known) / spread(before)
    np.testing.assert_allclose(after - center, stretched, atol=1e-4)


@pytest.mark.parametrize("shrinkage", [1e-6, 1.0, 1e6])
def test_spread_is_matched_by_direction(monkeypatch, oracle, shrinkage):
    """Along each principal direction of the known rows, or by one factor at the other end."""
    monkeypatch.setattr("clp_jax.transfer.blockwise.PLACED_ROWS", 16)
    rng = np.random.default_rng(0)
    before = rng.normal(2, 0.5, size=(50, 4)).astype("f4")
    known = (rng.normal(1, 3, size=(40, 4)) @ rng.normal(size=(4, 4))).astype("f4")
    after, computed = before.copy(), rng.permutation(50)[:40]
    rescale_spread(after, computed, known, shrinkage)
    expected = oracle.matched_by_direction(before[computed], known, shrinkage)
    np.testing.assert_allclose(after[computed], expected, rtol=1e-4, atol=1e-4)
    others = np.setdiff1d(np.arange(50), computed)
    np.testing.assert_array_equal(after[others], before[others])
    common = before.copy()
    rescale_spread(common, computed, known)
    assert np.allclose(after, common, atol=1e-3) == (shrinkage == 1e6)


def test_no_spread_to_match():
    rows, none = np.ones((3, 4), np.float32), np.arange(0)
    for computed, known in (
        (np.arange(3), np.zeros((0, 4), np.float32)),
        (np.arange(3), np.arange(8, dtype=np.float32).reshape(2, 4)),
        (none, np.eye(4, dtype=np.float32)),
    ):
        rescale_spread(rows, computed, known)
        np.testing.assert_array_equal(rows, 1)


def test_norms_matched_over_computed_rows_alone(table_inputs, layout):
    table = compose(table_inputs, match_spread=True)
    source = table_inputs.source_tensor.read()
    np.testing.assert_array_equal(table.rows[layout.copied], source[layout.copied_source])
    known = source[layout.copied_source[: layout.anchors]]
    spreads = [np.mean((t - t.mean(axis=0)) ** 2) for t in (table.rows[layout.missing], known)]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-5)
