"""Documents packed into one sequence are computed as if each were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from clp_jax.checkpoint.hf import load_model

LENGTHS = (9, 1, 14, 6)
ENDS = np.cumsum(LENGTHS)
SEGMENTS = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
POSITIONS = np.concatenate([np.arange(length) for length in LENGTHS])
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def case(tiny_model, tmp_path_factory):
    """A random PyTorch model with clear attention, the same in our code, and a row of tokens."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tiny_model, attn_implementation="eager"
    ).eval()
    generator = torch.manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    tokens = torch.randint(0, 300, (1, sum(LENGTHS)), generator=generator)
    return theirs, load_model(folder), tokens


def packed_logits(model, tokens, *, segments=SEGMENTS, positions=POSITIONS):
    def compute(tokens):
        batch = [None if x is None else jnp.asarray(x[None]) for x in (segments, positions)]
        hidden = model.hidden_states(tokens, segments=batch[0], positions=batch[1])
        return hidden @ model.output_embedding().T

    return np.asarray(jax.jit(compute)(jnp.asarray(tokens.numpy())))


def alone(compute, tokens):
    parts = np.split(tokens.numpy(), ENDS[:-1], axis=1)
    return np.concatenate([compute(torch.from_numpy(part)) for part in parts], axis=1)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("tiny_model", ["gpt2", "bloom"], indirect=True)
def test_logits_are_those_of_each_document_alone(case):
    theirs, ours, tokens = case
    found = packed_logits(ours, tokens)
    assert_close(found, alone(lambda part: ours(jnp.asarray(part.numpy())), tokens))
    with torch.no_grad():
        assert_close(found, alone(lambda part: theirs(part).logits.numpy(), tokens))


def test_without_the_mask_documents_change_each_other(case):
    _, ours, tokens = case
    apart = packed_logits(ours, tokens)
    together = packed_logits(ours, tokens, segments=None)
    assert_close(together[:, : LENGTHS[0]], apart[:, : LENGTHS[0]])
    assert np.abs(together - apart)[:, LENGTHS[0] :].max() > 1e-2 * np.abs(apart).max()


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
@pytest.mark.parametrize("positions", [None, POSITIONS], ids=["go on", "restart"])
def test_logits_are_those_of_pytorch_with_the_mask_written_out(case, positions):
    theirs, ours, tokens = case
    own = np.tril(SEGMENTS[:, None] == SEGMENTS)
    mask = torch.from_numpy(np.where(own, 0.0, np.finfo(np.float32).min).astype(np.float32))
    ids = torch.from_numpy(np.arange(tokens.shape[1]) if positions is None else positions)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask[None, None], position_ids=ids[None]).logits
    assert_close(packed_logits(ours, tokens, positions=positions), expected.numpy())


@pytest.mark.parametrize("masked", [True, False])
def test_no_gradient_crosses_documents(case, masked):
    """From a document's states to the word embeddings that only the others use."""
    _, ours, _ = case
    graphdef, params = nnx.split(ours)
    tokens = jnp.arange(sum(LENGTHS))[None]
    segments = jnp.asarray(SEGMENTS[None]) if masked else None
    document = slice(*ENDS[1:3])

    @jax.jit
    @jax.grad
    def gradient(params):
        hidden = nnx.merge(graphdef, params).hidden_states(tokens, segments=segments, remat="full")
        return jnp.square(hidden[:, document]).sum()

    rows = np.asarray(gradient(params).token_embedding.embedding[...])
    others = np.delete(np.arange(sum(LENGTHS)), document)
    assert np.any(rows[document], axis=1).all()
    assert np.any(rows[others]) == (not masked)
