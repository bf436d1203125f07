"""Models that were trained on trillions of tokens compute what PyTorch's transformers computes."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
import zstandard
from flax import nnx

from clp_jax.checkpoint.hf import load_model, model_tokenizer, save_model
from clp_jax.checkpoint.tensors import open_tensors
from clp_jax.data.corpus.store import Corpus
from clp_jax.evaluate.perplexity import measure_perplexity
from clp_jax.generate import generate_tokens
from clp_jax.mesh import single_device_mesh

pytestmark = pytest.mark.slow
PROMPTS = ("Die Hauptstadt von Frankreich ist", "The three laws of thermodynamics are")
LENGTH = 48


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma-3-270m"])
def pair(request, real_models):
    """The folder of a model, and the model in PyTorch."""
    folder = real_models / request.param
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return folder, theirs.eval()


def documents(shared_data, language, count):
    """The beginnings of held-out documents."""
    file = shared_data / "corpora" / language / "heldout.jsonl.zst"
    with zstandard.open(file, "rt", encoding="utf-8") as lines:
        return [
            json.loads(line)["text"][:400] for line, _ in zip(lines, range(count), strict=False)
        ]


@torch.no_grad()
def test_logits_of_german_and_english_sentences(pair, shared_data):
    folder, theirs = pair
    texts = [text for language in ("de", "en") for text in documents(shared_data, language, 100)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(text).input_ids[:LENGTH] for text in texts]
    rows = np.array([row for row in rows if len(row) == LENGTH], np.int32)
    graphdef, params = nnx.split(load_model(folder))
    logits = jax.jit(lambda params, tokens: nnx.merge(graphdef, params)(tokens))
    assert len(rows) >= 150
    for start in range(0, len(rows), 8):
        batch = np.resize(rows[start : start + 8], (8, LENGTH))
        expected = theirs(torch.tensor(batch, dtype=torch.long)).logits.numpy()
        difference = np.abs(np.asarray(logits(params, jnp.asarray(batch))) - expected).max()
        assert difference < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_generation_of_64_tokens(pair, prompt):
    folder, theirs = pair
    ids = transformers.AutoTokenizer.from_pretrained(folder)(prompt).input_ids
    expected = theirs.generate(
        torch.tensor([ids]), max_new_tokens=64, min_new_tokens=64, do_sample=False
    )
    ends = np.atleast_1d(theirs.generation_config.eos_token_id)
    found = generate_tokens(
        load_model(folder), np.array(ids), max_new_tokens=64, suppress=ends.tolist()
    )
    assert found == expected[0, len(ids) :].tolist()


@torch.no_grad()
def test_perplexity_of_wikitext2(pair, shared_data):
    folder, theirs = pair
    text = (shared_data / "bench" / "wikitext2" / "test.txt").read_text("utf-8")[:12_000]
    corpus = Corpus.from_documents([text], model_tokenizer(folder))
    mesh = single_device_mesh()
    ours = measure_perplexity(
        load_model(folder, mesh=mesh), corpus, sequence_length=64, batch_size=8, mesh=mesh
    )
    tokens = torch.tensor(np.asarray(corpus.tokens(), np.int64))
    total = 0.0
    for start in range(0, len(tokens) - 1, 64):
        window = tokens[start : start + 65]
        total += torch.nn.functional.cross_entropy(
            theirs(window[None, :-1]).logits[0], window[1:], reduction="sum"
        ).item()
    assert ours.token_perplexity == pytest.approx(math.exp(total / (len(tokens) - 1)), rel=1e-4)


def test_round_trip_is_exact(pair, tmp_path):
    folder, _ = pair
    save_model(load_model(folder), tmp_path / "out", origin=folder)
    before, after = open_tensors(folder), open_tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.read().tobytes() == after[name].read().tobytes(), name
