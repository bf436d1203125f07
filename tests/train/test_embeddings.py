import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.checkpoint.hub import ORIGINS
from clp_jax.errors import UserError
from clp_jax.train.embeddings import mean_norms, read_origins


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
def test_origins_that_are_none_are_told(tmp_path, damage):
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
    with pytest.raises(UserError, match=r"origins\.npz does not say where 10 rows are from"):
        read_origins(tmp_path, 10)
