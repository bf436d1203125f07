import numpy as np
import pytest


@pytest.fixture
def source_table(table_inputs):
    return table_inputs.source_tensor.read()


@pytest.fixture
def helper_table(table_inputs):
    return table_inputs.helper_tensor.read()


def some_vectors(rows, zeros):
    vectors = np.random.default_rng(1).normal(size=(rows, 5)).astype(np.float32)
    vectors[zeros] = 0
    return vectors


def equal(found, *expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_sources_statistics_are_in_every_problem(table_inputs, source_table):
    problem = table_inputs.nothing().problem
    np.testing.assert_allclose(problem.mean, source_table.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(problem.std, source_table.std(axis=0), rtol=1e-6)
    assert (problem.queries.shape, problem.rows.shape, problem.seed) == ((3, 0), (0, 4), 3)
    assert table_inputs.nothing().shared.shape == (6, 0)


def test_helper_rows(table_inputs, layout, source_table, helper_table):
    basis = table_inputs.helper_rows()
    shared = helper_table[[4, 2, 3, 6, 9, 10]]
    equal(basis.problem[:3], helper_table[[5, 8, 11]], shared, source_table[[7, 2, 5, 1, 7, 8]])
    equal((basis.shared, basis.anchor_ids), shared, [7, 2, 5, 1, 7, 8])
    assert basis.hold_out


def test_token_vectors_leave_out_shared_tokens_without_a_vector(table_inputs, source_table):
    vectors = some_vectors(12, zeros=[3, 8])
    basis = table_inputs.token_vectors(vectors)
    known = vectors[[4, 2, 6, 9, 10]]
    equal(basis.problem[:2], vectors[[5, 8, 11]], known)
    equal([basis.problem.rows_of(np.arange(5))], source_table[[7, 2, 1, 7, 8]])
    equal((basis.shared, basis.anchor_ids), vectors[[4, 2, 3, 6, 9, 10]], [7, 2, 1, 7, 8])
    assert basis.hold_out


def test_word_vectors_take_all_source_tokens_that_have_one(table_inputs, source_table):
    source, target = some_vectors(10, zeros=[0, 6]), some_vectors(12, zeros=[])
    basis = table_inputs.word_vectors(source, target)
    known = [1, 2, 3, 4, 5, 7, 8, 9]
    equal(basis.problem[:3], target[[5, 8, 11]], source[known], source_table[known])
    equal((basis.shared, basis.anchor_ids), target[[4, 2, 3, 6, 9, 10]], known)
    assert not basis.hold_out


def test_pieces_are_positions_among_the_rows_that_are_read(table_inputs, source_table):
    missing, shared = [[9, 3], [], [3, 3, 1]], [[7], [2], [5], [1], [7], [8]]
    basis = table_inputs.pieces(missing, shared)
    ids = [1, 2, 3, 5, 7, 8, 9]
    equal((basis.anchor_ids, basis.problem.rows), ids, source_table[ids])
    for queries, spellings in ((basis.problem.queries, missing), (basis.shared, shared)):
        found = [[ids[int(place)] for place in row if place >= 0] for row in queries]
        assert found == spellings


def test_helper_rows_and_pieces_about_their_means_and_of_equal_size(table_inputs, layout):
    missing, shared = [[1, 2], [], [3]], [[0], [1, 1, 4], [], [5, 6], [2], [9]]
    frequencies = np.arange(1, 7, dtype=np.float32)
    found = table_inputs.rows_and_pieces(missing, shared, frequencies)
    source = table_inputs.source_tensor.read().astype(np.float64)
    helper = table_inputs.helper_tensor.read().astype(np.float64)
    own = np.array(
        [source[ids].mean(axis=0) if ids else np.full(4, np.nan) for ids in missing + shared]
    )
    rows = helper[np.concatenate([layout.missing_helper, layout.anchor_helper])]
    expected = []
    for table in (rows, own):
        about = table - np.nanmean(table[3:], axis=0)
        expected.append(np.nan_to_num(about / np.sqrt(np.nanmean(about[3:] ** 2))))
    expected = np.concatenate(expected, axis=1)
    np.testing.assert_allclose(found.problem.queries, expected[:3], atol=1e-5)
    np.testing.assert_allclose(found.shared, expected[3:], atol=1e-5)
    np.testing.assert_array_equal(found.problem.frequencies, frequencies)
    left = found.problem.without(np.arange(6) == 2)
    assert left.frequencies.tolist() == [1, 2, 4, 5, 6]


def test_without_any_pieces_the_helpers_rows_are_left(table_inputs):
    found = table_inputs.rows_and_pieces([[]] * 3, [[]] * 6)
    assert found.problem.anchors[:, :3].any()
    assert not found.problem.anchors[:, 3:].any()
