"""The origins of rows and their norms; new rows that no text has move as those that it has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.checkpoint.hub import ORIGINS
from clp_jax.errors import UserError
from clp_jax.mesh import make_mesh
from clp_jax.train.rows import mean_norms, move_untouched, predict_change, read_origins

RANDOM = np.random.default_rng(0)


def test_norms_by_origin(tmp_path):
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.savez_compressed(
        tmp_path / ORIGINS, copied=[0, 3, 9], combined=[1, 2, 4, 5, 6, 7], role=[8], fallback=[]
    )
    origins = read_origins(tmp_path, 10)
    norms = np.sqrt((table.astype(np.float64) ** 2).sum(axis=1))
    assert mean_norms(jnp.asarray(table), origins) == pytest.approx(
        {
            "norm_copied": norms[[0, 3, 9]].mean(),
            "norm_combined": norms[[1, 2, 4, 5, 6, 7]].mean(),
            "norm_role": norms[8],
        },
        rel=1e-6,
    )
    whole = mean_norms(jnp.asarray(table), read_origins(tmp_path / "none", 10))
    assert whole == pytest.approx({"norm_all": norms.mean()}, rel=1e-6)


@pytest.mark.parametrize("damage", ["cut", "other ids", "floats", "bomb", "objects", "list"])
def test_invalid_origins_are_reported(tmp_path, damage):
    file = tmp_path / "transfer_origins.npz"
    arrays = {
        "other ids": np.array([0, -1]),
        "floats": np.array([0.5]),
        "bomb": np.zeros(1 << 20, np.int64),
        "objects": np.array([[], None], object),
    }
    np.savez_compressed(file, copied=arrays.get(damage, np.arange(10)))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-30])
    elif damage == "list":
        file.write_text("[]")
    with pytest.raises(
        UserError, match=r"origins\.npz does not give the origins of 10 rows: remove it"
    ):
        read_origins(tmp_path, 10)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_change_that_is_linear_is_found_from_the_touched_rows(devices):
    before = RANDOM.normal(size=(700, 12)) + 3
    after = before + 0.3 * (before @ RANDOM.normal(size=(12, 12)) / 4 + RANDOM.normal(size=12))
    touched, untouched = np.split(RANDOM.permutation(700), [600])
    counts = RANDOM.integers(1, 1000, 600)
    mesh = make_mesh(devices=jax.devices()[:devices])
    rows = before.astype(np.float32), after.astype(np.float32)
    found, error = predict_change(*rows, touched, untouched, counts, mesh=mesh)
    assert error < 1e-6
    np.testing.assert_allclose(found, (after - before)[untouched], atol=2e-3)


def test_few_rows_tell_only_by_how_much_all_move():
    before = RANDOM.normal(size=(7, 12)).astype(np.float32)
    after = before + np.float32(0.5)
    some, others = np.split(np.arange(7), [4])
    found, error = predict_change(
        before, after, some, others, np.ones(4, int), mesh=make_mesh(devices=jax.devices()[:1])
    )
    assert error is None
    np.testing.assert_allclose(found, 0.5, atol=1e-5)


@pytest.mark.parametrize("predicts", [False, True])
def test_what_the_softmax_taught_is_kept(predicts):
    before = RANDOM.normal(size=(40, 6)).astype(np.float32)
    after, counts = before.copy(), np.zeros(40, int)
    counts[:20], new = 5, np.arange(40) < 30
    after[:20] += np.float32([1, 2, 0, 0, 0, 0])
    if predicts:
        after[20:] -= np.float32([3, 0, 0, 0, 0, 0])
    params = {"token_embedding": {"embedding": jnp.asarray(after)}}
    tables = {"token_embedding": before}
    moved, facts = move_untouched(params, tables, counts, new, predicts=predicts)
    expected = after.copy()
    expected[20:30] += np.float32([0 if predicts else 1, 2, 0, 0, 0, 0])
    np.testing.assert_allclose(moved["token_embedding"]["embedding"], expected, atol=1e-5)
    assert (facts["touched"], facts["untouched"]) == (20, 10)
