"""Gemma multiplies its embeddings and bounds its logits: a transfer is right in both."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.checkpoint.tensors import open_tensors
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.calibration import Evaluator, make_sample
from clp_jax.transfer.stage import transfer_model
from clp_jax.vocabulary import compare_vocabularies

TABLE = "model.embed_tokens.weight"


@pytest.fixture
def gemma(source):
    """The source with the weights of a Gemma 2 whose logits stay below 10."""
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
        query_pre_attn_scalar=8, final_logit_softcapping=10.0, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    transformers.Gemma2ForCausalLM(config).save_pretrained(source)
    return source


def test_predictions_that_calibration_sees_are_bounded(gemma, text):
    table = load_file(gemma / "model.safetensors")[TABLE]
    sample = make_sample(text, load_tokenizer(gemma), rows=len(table), positions=64)
    config = json.loads((gemma / "config.json").read_text())
    evaluator = Evaluator(config, open_tensors(gemma), [TABLE], sample, single_device_mesh())
    model = transformers.AutoModelForCausalLM.from_pretrained(gemma, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor(sample.calibration[:, :-1])).logits
    expected = torch.softmax(logits, -1).mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(evaluator._expectations({TABLE: table})[0], expected, rtol=1e-4)
    uncapped = torch.softmax(10 * torch.atanh(logits / 10), -1).mean(dim=(0, 1)).numpy()
    assert np.abs(uncapped / expected - 1).max() > 1e-3


def divergence(folder, sample):
    """From the mean prediction of PyTorch's model to the frequencies of the text, in nats."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor(sample.calibration[:, :-1])).logits
    assert logits.abs().max() <= 10
    found = torch.softmax(logits.double(), -1).mean(dim=(0, 1)).numpy()
    wanted = sample.frequencies
    return float((wanted * np.log(wanted / found)).sum())


def test_rows_are_those_of_the_checkpoint_and_calibration_works(gemma, helper, text, tmp_path):
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": document}) + "\n" for document in text))
    stored = load_file(gemma / "model.safetensors")[TABLE]
    overlap = compare_vocabularies(gemma, helper)
    transfer_model(gemma, helper, tmp_path / "plain", method="ridge", match_spread=True)
    rows = load_file(tmp_path / "plain" / "model.safetensors")[TABLE]
    np.testing.assert_array_equal(rows[overlap.target_ids], stored[overlap.source_ids])
    shared = stored[overlap.source_ids[overlap.anchors]]
    spreads = [np.sqrt(np.square(of - of.mean(axis=0)).mean()) for of in
               (rows[overlap.missing_ids], shared)]  # fmt: skip
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-4)

    options = {"data": [str(file)], "calibrate": True}
    transfer_model(gemma, helper, tmp_path / "calibrated", method="ridge", **options)
    sample = make_sample(text, load_tokenizer(helper), rows=len(rows), positions=64)
    before, after = (divergence(tmp_path / name, sample) for name in ("plain", "calibrated"))
    assert after < before / 10
