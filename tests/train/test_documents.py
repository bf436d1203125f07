import jax.numpy as jnp
import numpy as np
import pytest

from clp_jax.train.documents import document_numbers, document_positions

EOS = 7


@pytest.mark.parametrize(
    ("tokens", "numbers", "positions"),
    [
        ([7, 1, 2, 7, 3], [1, 1, 1, 2, 2], [0, 1, 2, 0, 1]),
        ([1, 2, 3, 7, 3], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]),
        ([1, 2, 7, 7, 7], [0, 0, 1, 2, 3], [0, 1, 0, 0, 0]),
        ([1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]),
    ],
)
def test_an_eos_opens_the_document_that_follows(tokens, numbers, positions):
    batch = jnp.asarray([[1, 1, 7, 1, 1], tokens], jnp.int32)
    np.testing.assert_array_equal(document_numbers(batch, EOS)[1], numbers)
    np.testing.assert_array_equal(document_positions(batch, EOS)[1], positions)
