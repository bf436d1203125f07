import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.checkpoint.hub import ORIGINS
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
