from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec

from clp_jax.loss import next_token_loss
from clp_jax.mesh import ACTIVATIONS, make_mesh

from .marks import slow


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(3, 11, 8)).astype(np.float32)
    head = rng.normal(size=(17, 8)).astype(np.float32)
    targets = rng.integers(0, 17, size=(3, 11))
    mask = rng.random((3, 11)) < 0.7
    return hidden, head, targets, mask


def value_and_gradients(hidden, head, targets, mask, **settings):
    """The loss, its parts, and its gradients by the hidden states and the head."""
    return jax.value_and_grad(partial(next_token_loss, **settings), argnums=(0, 1), has_aux=True)(
        *map(jnp.asarray, (hidden, head, targets, mask))
    )


@pytest.mark.parametrize(("z_loss", "softcap"), [(0.0, None), slow(0.1, None), (0.1, 3.0)])
@pytest.mark.parametrize("chunk", [slow(1), 4, slow(11), 100])
def test_value_and_gradients_equal_pytorch(inputs, chunk, z_loss, softcap):
    hidden, head, targets, mask = inputs
    settings = {"chunk": chunk, "z_loss": z_loss, "softcap": softcap}
    (total, sums), gradients = value_and_gradients(*inputs, **settings)
    rest = [jnp.asarray(x) for x in inputs[1:]]
    thrice = jax.grad(lambda h: 3 * next_token_loss(h, *rest, **settings)[0])(jnp.asarray(hidden))
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (hidden, head)]
    logits, correct = (theirs[0] @ theirs[1].T)[torch.tensor(mask)], torch.tensor(targets[mask])
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    loss = torch.nn.functional.cross_entropy(logits, correct, reduction="sum")
    z = (torch.logsumexp(logits, -1) ** 2).sum()
    (loss + z_loss * z).backward()
    assert sums.tokens == mask.sum()
    np.testing.assert_allclose(sums.loss, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(sums.z, z.item(), rtol=1e-6)
    np.testing.assert_allclose(total, (loss + z_loss * z).item(), rtol=1e-6)
    for ours, parameter in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(ours, parameter.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(thrice, 3 * gradients[0], rtol=1e-6)


def test_bfloat16_states_give_float32_sums_and_gradients_of_the_head(inputs):
    hidden, head, targets, mask = inputs
    (total, _), (by_hidden, by_head) = value_and_gradients(
        jnp.asarray(hidden, jnp.bfloat16), head, targets, mask, chunk=4
    )
    assert (total.dtype, by_hidden.dtype, by_head.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    (exact, _), (exact_by_hidden, exact_by_head) = value_and_gradients(*inputs, chunk=4)
    np.testing.assert_allclose(total, exact, rtol=1e-2)
    for ours, expected in ((by_hidden, exact_by_hidden), (by_head, exact_by_head)):
        difference = np.abs(np.asarray(ours, np.float32) - expected).max()
        assert 0 < difference < 2e-2 * np.abs(expected).max()


def placed(inputs, mesh):
    hidden, head, *rest = inputs
    head = jax.device_put(head, NamedSharding(mesh, PartitionSpec(None, "fsdp")))
    activations = NamedSharding(mesh, PartitionSpec(*ACTIVATIONS))
    hidden, *rest = (jax.device_put(x, activations) for x in (hidden, *rest))
    return hidden, head, *rest


@pytest.mark.parametrize("sizes", [(1, 4, 1, 2), slow((2, 2, 2, 1)), slow((8, 1, 1, 1))], ids=str)
def test_every_mesh_computes_what_one_device_does(sizes):
    data, fsdp, tensor, sequence = sizes
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(8, 12, 8)).astype(np.float32)
    inputs = (
        hidden,
        rng.normal(size=(18, 8)).astype(np.float32),  # which 4 does not divide
        rng.integers(0, 18, size=(8, 12)),
        rng.random((8, 12)) < 0.7,
    )
    mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor, sequence=sequence)
    with jax.set_mesh(mesh):
        laid_out = placed(inputs, mesh)
        result = jax.jit(partial(value_and_gradients, chunk=6, z_loss=0.1))(*laid_out)
    expected = value_and_gradients(*inputs, chunk=6, z_loss=0.1)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), jax.device_get(result), expected
    )


def compiled(batch, length, embed, vocab, *, chunk, mesh=None):
    """The loss and its gradients, of bfloat16 states, for arrays that lie on the mesh."""
    mesh = mesh or make_mesh(devices=jax.devices()[:1])

    def abstract(shape, dtype, *axes):
        return jax.ShapeDtypeStruct(
            shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes))
        )

    head = abstract((vocab, embed), jnp.float32, None, "fsdp")
    hidden = abstract((batch, length, embed), jnp.bfloat16, *ACTIVATIONS)
    targets = abstract((batch, length), jnp.int32, *ACTIVATIONS)
    mask = abstract((batch, length), jnp.bool_, *ACTIVATIONS)

    @partial(jax.jit, out_shardings=(hidden.sharding, head.sharding))
    def gradients(*inputs):
        return value_and_gradients(*inputs, chunk=chunk)[1]

    with jax.set_mesh(mesh):
        return gradients.lower(hidden, head, targets, mask).compile()


def test_the_logits_of_a_batch_never_exist():
    batch, length, embed, vocab, chunk = 2, 1024, 8, 50_000, 32
    memory = compiled(batch, length, embed, vocab, chunk=chunk).memory_analysis()
    logits = batch * length * vocab * 4
    one_chunk = batch * chunk * vocab * 4
    assert memory.temp_size_in_bytes < 5 * one_chunk < logits / 6


def test_logits_are_computed_once():
    batch, length, embed, vocab = 2, 128, 64, 1024
    flops = compiled(batch, length, embed, vocab, chunk=length).cost_analysis()["flops"]
    product = 2 * batch * length * embed * vocab
    assert 3 * product < flops < 3.5 * product


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 4, 1)], ids=str)
def test_no_device_holds_the_whole_head_or_its_gradient(sizes):
    batch, length, embed, vocab = 8, 16, 256, 20_000
    mesh = make_mesh(*sizes)
    memory = compiled(batch, length, embed, vocab, chunk=8, mesh=mesh).memory_analysis()
    assert memory.temp_size_in_bytes < 0.6 * vocab * embed * 4
