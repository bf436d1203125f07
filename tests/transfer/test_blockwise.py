import jax
import numpy as np
import pytest

from clp_jax.mesh import make_mesh, replicated
from clp_jax.transfer import blockwise as engine
from clp_jax.transfer.blockwise import row_sharding
from clp_jax.transfer.methods import similarity as similar
from clp_jax.transfer.methods.clp import cosine_weights
from clp_jax.transfer.methods.linear import linear_weights
from clp_jax.transfer.methods.pursuit import Pursuit

MANY = 8 * engine.BLOCK_ROWS + 100


@pytest.mark.parametrize("queries", [1, 300, MANY])
def test_rows_are_weights_times_rows(mesh, problem, queries):
    asked = problem(mesh=mesh, queries=queries)
    found = engine.weighted(linear_weights, asked, np.zeros(queries, bool)).rows
    weights = asked.queries.astype(np.float64) @ asked.anchors.T
    np.testing.assert_allclose(found, weights @ asked.rows, rtol=1e-5, atol=1e-4)


def test_close_lengths_share_a_program(mesh):
    placed = {engine.shard_rows(np.ones((rows, 3)), mesh).shape for rows in (1, 200, 256)}
    assert placed == {(engine.BLOCK_ROWS * mesh.size, 3)}


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 40_236])
def test_slices_are_nearly_equal(count):
    """Padded to whole blocks they are the same, and so is the program for them."""
    slices = [*engine.row_slices(count)]
    assert [i for part in slices for i in range(count)[part]] == [*range(count)]
    sizes = {part.stop - part.start for part in slices}
    assert max(sizes, default=0) <= engine.PLACED_ROWS
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_no_query(mesh, problem):
    found = engine.weighted(linear_weights, problem(mesh=mesh, queries=0), np.zeros(0, bool))
    assert found.rows.shape == (0, 20)


@pytest.mark.parametrize("weigh", [linear_weights, similar.Nearest()])
def test_anchors_between_other_rows(mesh, problem, weigh):
    """To leave some anchors out is to have never had them."""
    asked = problem(mesh=mesh)
    hidden, nothing = np.arange(120) % 5 == 1, np.zeros(300, bool)
    fewer = asked._replace(anchors=asked.anchors[~hidden], rows=asked.rows[~hidden])
    found, expected = (
        engine.weighted(weigh, p, nothing).rows for p in (asked.without(hidden), fewer)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_contributors_are_the_largest_weights_by_size(mesh, problem):
    asked = problem(mesh=mesh, center=0.0)
    ids, found = engine.contributors_by(linear_weights, asked)(5)
    weights = asked.queries.astype(np.float64) @ asked.anchors.T
    order = np.argsort(-np.abs(weights), axis=1)[:, :5]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_allclose(found, np.take_along_axis(weights, order, 1), atol=1e-5)
    assert (found < 0).any()


@pytest.mark.parametrize(
    ("weigh", "largest"),
    [
        (cosine_weights, 5),
        (similar.Nearest(), None),
        (similar.sparsemax, None),
        (similar.sparsemax, 5),
        (Pursuit(8), None),
    ],
)
def test_the_queries_never_meet_all_anchors_at_once(weigh, largest):
    """Memory grows with the block and the anchors, not with the queries."""
    mesh, anchors = make_mesh(2, 2, 2), 4096

    def temporary(queries):
        spread, whole = row_sharding(mesh), replicated(mesh)
        shapes = ((queries, 16), spread), ((anchors, 16), whole), ((anchors, 24), whole)
        tables = [jax.ShapeDtypeStruct(s, np.float32, sharding=at) for s, at in shapes]
        program = engine._in_blocks.lower(*tables, None, weigh=weigh, largest=largest, mesh=mesh)
        return program.compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(8 * engine.BLOCK_ROWS), temporary(64 * engine.BLOCK_ROWS)
    block = engine.BLOCK_ROWS * anchors * 4
    assert few < 12 * block
    # What else there is of each query is its own: features, and the row that comes out.
    assert many - few < 56 * engine.BLOCK_ROWS / 8 * (16 + 24) * 4 * 2
