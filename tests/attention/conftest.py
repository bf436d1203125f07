"""Random attention problems with their solution in float64, gradients included."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.attention import alibi_slopes


@dataclass(frozen=True)
class Problem:
    """Queries at the positions from ``start`` on, and keys and values at all of them."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    scale: float
    slopes: np.ndarray | None
    window: int | None
    softcap: float | None
    segments: np.ndarray | None
    start: int

    def solution(self):
        """Float64: the output and the gradients of query, key and value.

        ALiBi is that of the paper: slope * (key position - query position).
        """
        query, key, value, gradient = (
            np.asarray(x, np.float64) for x in (self.query, self.key, self.value, self.gradient)
        )
        group = query.shape[2] // key.shape[2]
        key, value = (np.repeat(x, group, axis=2) for x in (key, value))
        own = self.start + np.arange(query.shape[1])
        distance = np.arange(key.shape[1]) - own[:, None]
        scores = np.einsum("bqhd,bkhd->bhqk", query, key) * self.scale
        of_cap = 1.0
        if self.softcap is not None:
            scores = self.softcap * np.tanh(scores / self.softcap)
            of_cap = 1 - (scores / self.softcap) ** 2
        if self.slopes is not None:
            scores = scores + np.float64(self.slopes)[:, None, None] * distance
        nearest = -np.inf if self.window is None else -self.window
        seen = np.broadcast_to((distance <= 0) & (distance > nearest), scores.shape)
        if self.segments is not None:
            same = self.segments[:, own, None] == self.segments[:, None]
            seen = seen & same[:, None]
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        of_weights = np.einsum("bqhd,bkhd->bhqk", gradient, value)
        inner = (weights * of_weights).sum(-1, keepdims=True)
        of_scores = weights * (of_weights - inner) * of_cap * self.scale

        def of_group(x):
            return x.reshape(*self.key.shape[:3], group, -1).sum(3)

        return (
            np.einsum("bhqk,bkhd->bqhd", weights, value),
            np.einsum("bhqk,bkhd->bqhd", of_scores, key),
            of_group(np.einsum("bhqk,bqhd->bkhd", of_scores, query)),
            of_group(np.einsum("bhqk,bqhd->bkhd", weights, gradient)),
        )

    @property
    def kind(self):
        """What only some implementations take."""
        kind = {"window": self.window, "softcap": self.softcap}
        return {name: value for name, value in kind.items() if value is not None}

    def computed(self, attend, dtype="float32", **options):
        """What ``attend`` makes of it, as `solution`."""
        arrays = [jnp.asarray(x, dtype) for x in (self.query, self.key, self.value)]
        segments = None if self.segments is None else jnp.asarray(self.segments)

        def compute(query, key, value, gradient):
            attended, transpose = jax.vjp(
                lambda *qkv: attend(
                    *qkv, slopes=self.slopes, segments=segments, **self.kind, **options
                ),
                *(query, key, value),
            )
            return attended, *transpose(gradient)

        found = jax.jit(compute)(*arrays, jnp.asarray(self.gradient, dtype))
        assert {x.dtype for x in found} == {jnp.dtype(dtype)}
        return [np.asarray(x.astype(jnp.float32)) for x in found]

    def scaled(self):
        """The same for what takes queries that are multiplied already: the scale is 1."""
        return replace(self, query=self.query * np.float32(self.scale), scale=1.0)


@pytest.fixture
def make_problem():
    def make(
        length,
        head_dim,
        *,
        heads=3,
        kv_heads=None,
        batch=2,
        alibi=False,
        window=None,
        softcap=None,
        packed=False,
        start=0,
    ):
        rng = np.random.default_rng(length + head_dim)
        query, gradient = rng.normal(size=(2, batch, length, heads, head_dim)).astype(np.float32)
        of_keys = (batch, length, kv_heads or heads, head_dim)
        key, value = rng.normal(size=(2, *of_keys)).astype(np.float32)
        documents = np.sort(rng.integers(0, 4, (batch, length)), axis=1).astype(np.int32)
        return Problem(
            query[:, start:],
            key,
            value,
            gradient[:, start:],
            scale=head_dim**-0.5,
            slopes=alibi_slopes(heads) if alibi else None,
            window=window,
            softcap=softcap,
            segments=documents if packed else None,
            start=start,
        )

    return make


@pytest.fixture
def assert_solved():
    """Differences are relative to the largest element of each array."""

    def check(found, expected, tolerance):
        names = ("output", "query", "key", "value")
        for name, one, other in zip(names, found, expected, strict=True):
            difference = np.abs(one - other).max() / np.abs(other).max()
            assert difference < tolerance, (name, difference)

    return check
