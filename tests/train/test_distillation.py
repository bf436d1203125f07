"""What a teacher adds to the loss, against slow formulas in float64."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.train.distillation import TEMPERATURE, hidden_state_loss, likelihood_loss

RANDOM = np.random.default_rng(0)
POSITIONS = np.array(
    [
        [-1, 0, 2, -1, 3, 6, -1],
        [0, 1, 2, 3, 4, 5, 6],
        [-1, -1, -1, -1, -1, -1, -1],
        [-1, -1, 5, -1, -1, -1, 7],
    ],
    np.int32,
)
"""For 7 tokens, the position among 8 of the source's."""
MASK = np.ones((4, 6), bool)
MASK[1, 3] = False


def test_hidden_states():
    hidden, taught = RANDOM.normal(size=(4, 6, 5)), RANDOM.normal(size=(4, 8, 5))
    positions = POSITIONS[:, :-1]
    expected = sum(
        np.sum((hidden[row, i] - taught[row, at]) ** 2) / np.sum(taught[row, at] ** 2)
        for row, places in enumerate(positions)
        for i, at in enumerate(places)
        if at >= 0
    )
    found = hidden_state_loss(*map(jnp.float32, (hidden, taught)), jnp.asarray(positions))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_hidden_states_in_bfloat16_are_compared_in_float32():
    """Long rows of the size of a small model's, whose squares bfloat16 could not add up."""
    hidden, taught = (RANDOM.normal(size=(4, 256, 576)).astype(jnp.bfloat16) for _ in range(2))
    positions = np.tile(np.arange(256, dtype=np.int32), (4, 1))
    wide = hidden.astype(np.float64), taught.astype(np.float64)
    expected = np.sum(np.sum((wide[0] - wide[1]) ** 2, -1) / np.sum(wide[1] ** 2, -1))
    found = hidden_state_loss(jnp.asarray(hidden), jnp.asarray(taught), jnp.asarray(positions))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def divergence(losses, taught):
    """The sum over the stretches, one after the other."""
    total, count = 0.0, 0
    for row, positions in enumerate(POSITIONS):
        aligned = [i for i, at in enumerate(positions) if at >= 0]
        for before, after in pairwise(aligned):
            if not MASK[row, before:after].all():
                continue
            ours = np.exp(-losses[row, before:after].sum() / TEMPERATURE)
            theirs = np.exp(-taught[row, positions[before] : positions[after]].sum() / TEMPERATURE)
            total += theirs * np.log(theirs / ours)
            total += (1 - theirs) * np.log((1 - theirs) / (1 - ours))
            count += 1
    return total, count


@pytest.mark.parametrize("size", [1.0, 12.0])
def test_likelihoods_and_their_gradient(size):
    losses, taught = RANDOM.exponential(size, (4, 6)), RANDOM.exponential(size, (4, 7))
    expected, count = divergence(losses, taught)
    found, slopes, stretches = jax.jit(likelihood_loss)(
        *map(jnp.float32, (losses, taught)), jnp.asarray(POSITIONS), jnp.asarray(MASK)
    )
    assert stretches == count == 9
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    step = 1e-6
    for place in np.ndindex(losses.shape):
        moved = losses.copy()
        moved[place] += step
        slope = (divergence(moved, taught)[0] - expected) / step
        np.testing.assert_allclose(slopes[place], slope, rtol=1e-3, atol=1e-6)


def test_equal_likelihoods_teach_nothing():
    losses = jnp.asarray(RANDOM.exponential(1, (1, 6)), jnp.float32)
    positions = jnp.arange(7)[None]
    found, slopes, _ = likelihood_loss(losses, losses, positions, jnp.ones((1, 6), bool))
    assert found == 0
    assert not slopes.any()
