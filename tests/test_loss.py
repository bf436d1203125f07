import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from clp_jax.loss import next_token_loss


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3, 11, 8)).astype(np.float32)
    head = rng.normal(size=(17, 8)).astype(np.float32)
    targets = rng.integers(0, 17, size=(3, 11))
    mask = rng.random((3, 11)) < 0.7
    return hidden, head, targets, mask


@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
def test_value_and_gradients_equal_pytorch(inputs, chunk):
    hidden, head, targets, mask = inputs
    (total, count), gradients = jax.value_and_grad(
        lambda h, w: next_token_loss(h, w, jnp.asarray(targets), jnp.asarray(mask), chunk=chunk),
        argnums=(0, 1),
        has_aux=True,
    )(jnp.asarray(hidden), jnp.asarray(head))
    theirs = [torch.tensor(x, requires_grad=True) for x in (hidden, head)]
    expected = torch.nn.functional.cross_entropy(
        (theirs[0] @ theirs[1].T)[torch.tensor(mask)],
        torch.tensor(targets)[torch.tensor(mask)],
        reduction="sum",
    )
    expected.backward()
    assert count == mask.sum()
    np.testing.assert_allclose(total, expected.item(), rtol=1e-6)
    for ours, parameter in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(ours, parameter.grad.numpy(), atol=1e-5)


def test_the_logits_of_a_batch_never_exist(inputs):
    batch, length, embed, vocab, chunk = 2, 1024, 8, 50_000, 32

    def loss(hidden, head):
        targets = jnp.zeros((batch, length), jnp.int32)
        return next_token_loss(hidden, head, targets, jnp.ones((batch, length), bool), chunk=chunk)

    compiled = (
        jax.jit(jax.grad(lambda h, w: loss(h, w)[0], argnums=(0, 1)))
        .lower(
            jax.ShapeDtypeStruct((batch, length, embed), jnp.float32),
            jax.ShapeDtypeStruct((vocab, embed), jnp.float32),
        )
        .compile()
    )
    logits = batch * length * vocab * 4
    one_chunk = batch * chunk * vocab * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 5 * one_chunk < logits / 6
