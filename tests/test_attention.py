import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from clp_jax.attention import alibi_slopes, attend, dropout, precision_of


@pytest.mark.parametrize("heads", [1, 2, 5, 8, 12, 16, 20, 32, 112])
def test_slopes_are_those_of_transformers(heads):
    mask = torch.ones(1, 2)
    theirs = build_alibi_tensor(mask, heads, torch.float32)[:, 0, 1].numpy()
    np.testing.assert_allclose(alibi_slopes(heads), theirs, rtol=1e-6)


def reference(query, key, value, scale, slopes, start, segments):
    """Float64, with the bias of the paper: slope * (key position - query position)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) * scale
    distance = np.arange(key.shape[1]) - (start + np.arange(query.shape[1]))[:, None]
    scores = np.where(distance <= 0, scores + slopes[:, None, None] * distance, -np.inf)
    own = segments[:, start : start + query.shape[1], None] == segments[:, None]
    scores = np.where(own[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize(("start", "queries"), [(0, 9), (5, 4), (8, 1)])
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_equals_the_formula(start, queries, alibi, packed):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, queries, 3, 4)).astype(np.float32)
    key, value = rng.normal(size=(2, 2, 9, 3, 4)).astype(np.float32)
    slopes = alibi_slopes(3)
    documents = np.array([[0, 0, 1, 1, 1, 2, 3, 3, 3], [0] * 7 + [1] * 2]) * packed
    ours = attend(
        *map(jnp.asarray, (query, key, value)),
        scale=0.5,
        slopes=slopes if alibi else None,
        start=start,
        segments=jnp.asarray(documents) if packed else None,
    )
    expected = reference(query, key, value, 0.5, slopes * alibi, start, documents)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_the_softmax_is_float32_whatever_the_inputs():
    query = jnp.ones((1, 2048, 1, 8), jnp.bfloat16)
    value = jnp.ones((1, 2048, 1, 8), jnp.bfloat16)
    attended = attend(query, query, value, scale=1.0)
    assert attended.dtype == jnp.bfloat16
    np.testing.assert_array_equal(attended[0, -1].astype(jnp.float32), 1.0)


def test_dropout():
    x = jnp.ones(10_000)
    dropped = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float(dropped.mean()) - 1.0) < 0.02
    assert dropout(x, 0.25, None) is x


def test_float32_is_multiplied_as_float32():
    assert precision_of(jnp.float32) == jax.lax.Precision.HIGHEST
    assert precision_of(jnp.bfloat16) == jax.lax.Precision.DEFAULT
