import numpy as np
import pytest

from clp_jax.transfer import topk


@pytest.mark.parametrize("missing", [1, 37, 600])
def test_equals_the_oracle(mesh, oracle, missing):
    rng = np.random.default_rng(0)
    helper = rng.normal(size=(missing + 211, 8)).astype(np.float32)
    source = rng.normal(size=(211, 14)).astype(np.float32)
    inputs = helper[:missing], helper[missing:], source
    rows = topk.combine(*inputs, mesh)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, oracle.topk(*inputs), atol=1e-5)


def test_fewer_shared_tokens_than_neighbours(mesh, oracle):
    rng = np.random.default_rng(0)
    helper = rng.normal(size=(9, 8)).astype(np.float32)
    source = rng.normal(size=(4, 14)).astype(np.float32)
    inputs = helper[:5], helper[5:], source
    np.testing.assert_allclose(topk.combine(*inputs, mesh), oracle.topk(*inputs), atol=1e-5)
