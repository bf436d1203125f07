"""A GGUF file computes and generates in llama.cpp as the model does in PyTorch."""

import json
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFReader, TokenType
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, processors

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.convert import convert_checkpoint
from clp_jax.errors import UserError

from ..marks import slow
from ..tiny import CHAT, CHATML, KINDS, load, write_tokenizer, write_weights
from .llama_cpp import LlamaCpp, same_ids
from .tokenizers_of_all_kinds import GEMMA, TEXTS, bpe, sentence_piece, write_model

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": LINEAR,
}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("gpt2", {}),
        ("llama", {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}),
        slow("gpt2", {"n_inner": 40, "tie_word_embeddings": False}),
        slow("bloom", {}),
        slow("llama", {"head_dim": 8, "tie_word_embeddings": True}),
        slow("mistral", {"sliding_window": None, "rope_parameters": LINEAR}),
        slow("qwen2", {"rope_parameters": LINEAR}),
        slow("qwen3", {}),
        slow("gemma2", GEMMA),
        slow("gemma3_text", {**GEMMA, "num_hidden_layers": 7, "rope_parameters": ROPES}),
    ],
)
def test_llama_cpp_computes_and_generates_the_same(kind, values, model, tmp_path):
    sizes = KINDS[kind] | {"model_type": kind, "tie_word_embeddings": True, **values}
    rows = write_tokenizer(model, TEXTS[0], ["<|endoftext|>"], None, eos_token="<|endoftext|>")
    write_weights(model, 0, scale=0.2, vocab_size=rows, **sizes)
    convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager")
    for module in theirs.modules():
        for name, part in module.named_children():
            if "gelu" in type(part).__name__.lower():
                setattr(module, name, HalfGelu())
    ours = LlamaCpp(tmp_path / "model.gguf")
    ids = np.random.default_rng(0).integers(1, rows, 24).tolist()
    printable = load_tokenizer(model).encode("a")[0]
    with torch.no_grad():
        expected = torch.log_softmax(theirs(torch.tensor([ids])).logits[0], -1).numpy()
    assert np.ptp(expected[-1]) > 3
    for length in (1, 2, 9, 24):
        found = ours.log_probabilities(ids[:length], rows, printable)
        np.testing.assert_allclose(found, expected[length - 1], atol=1e-3)
    generated = theirs.generate(
        torch.tensor([ids[:3]]), max_new_tokens=16, do_sample=False, eos_token_id=None
    )
    assert ours.generate(ids[:3], 16) == generated[0, 3:].tolist()


class HalfGelu(torch.nn.Module):
    """llama.cpp's GELU on CPUs: a table of half-precision values."""

    def forward(self, x):
        half = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half()
        return half.float()


def test_the_vocabulary_is_the_tokenizers(model, tmp_path):
    """Also rows for no token, and ids without one, which a sampler must not choose."""
    tokenizer = bpe(use_regex=True)
    tokenizer.add_special_tokens(CHAT)
    tokenizer.add_tokens([AddedToken("Haus und Hof", special=False)])
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"]["after a gap"] = 900
    write_model(model, Tokenizer.from_str(json.dumps(state)), more_rows=7)
    ours = load_tokenizer(model)
    missing = sorted({*range(901)} - {*ours.vocabulary.values()})
    assert len(missing) > 90
    end = ours.vocabulary["<|im_end|>"]
    (model / "chat_template.jinja").write_text(CHATML)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, end]}))
    tensors = load(model)
    tensors["lm_head.weight"][[*missing, *range(901, 908)]] *= 100
    save_file(tensors, model / "model.safetensors")
    convert_checkpoint(model, tmp_path / "model.gguf", "gguf", dtype=np.dtype(np.float16))

    reader = GGUFReader(tmp_path / "model.gguf")
    field = {name: field.contents() for name, field in reader.fields.items()}
    assert len(field["tokenizer.ggml.tokens"]) == ours.rows == 901
    kinds = dict(
        zip(field["tokenizer.ggml.tokens"], field["tokenizer.ggml.token_type"], strict=True)
    )
    assert {kinds[token] for token in ("<|endoftext|>", *CHAT)} == {TokenType.CONTROL}
    assert kinds["Haus und Hof"] == TokenType.USER_DEFINED
    assert field["tokenizer.ggml.suppress_tokens"] == missing
    assert field["tokenizer.ggml.bos_token_id"] == field["tokenizer.ggml.eos_token_id"] == 0
    assert field["tokenizer.ggml.eot_token_id"] == end
    assert field["tokenizer.ggml.add_bos_token"] is False
    assert field["tokenizer.chat_template"] == CHATML
    assert field["general.architecture"] == "llama"
    assert field["general.file_type"] == 1
    kinds = {
        tensor.name: (tensor.tensor_type.name, tensor.shape.tolist()) for tensor in reader.tensors
    }
    assert kinds["token_embd.weight"] == ("F16", [16, ours.rows])
    assert kinds["blk.1.attn_norm.weight"] == ("F32", [16])

    llama_cpp = LlamaCpp(tmp_path / "model.gguf")
    ids = llama_cpp.encode("<|im_start|>Haus und Hof<|im_end|>", special=True)
    assert ids == ours.encode_context("<|im_start|>Haus und Hof<|im_end|>")
    assert len(ids) == 3
    assert {*missing}.isdisjoint(llama_cpp.generate(ids, 20))


def test_brain_floats_and_what_begins_every_text(model, tmp_path):
    tokenizer = sentence_piece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    write_model(model, tokenizer, "<eos>", model_type="gemma2", **GEMMA)
    brain = np.dtype(ml_dtypes.bfloat16)
    convert_checkpoint(model, tmp_path / "model.gguf", "gguf", dtype=brain)
    reader = GGUFReader(tmp_path / "model.gguf")
    (table,) = (tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    expected = load(model)["model.embed_tokens.weight"].astype(brain)
    assert table.data.tobytes() == expected.tobytes()
    text = "Der Hund und die Katze"
    found = LlamaCpp(tmp_path / "model.gguf").encode(text, special=True)
    assert found == load_tokenizer(model).encode_context(text)
    assert found[0] == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2", "activation_function": "gelu"}, "has the activation function gelu"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "has scale_attn_by_inv"),
        ({"model_type": "gemma2", "tie_word_embeddings": False, **GEMMA}, "has an untied head"),
        ({"model_type": "gemma3_text", "query_pre_attn_scalar": 3}, "has query_pre_attn_scalar"),
        ({"model_type": "qwen3", "rope_parameters": LLAMA3}, "rope_type llama3 of a qwen3"),
        ({"model_type": "olmo2"}, "is a olmo2, and a GGUF file can be written for gpt2, bloom"),
    ],
)
def test_models_that_llama_cpp_does_not_have_are_refused(values, message, model, tmp_path):
    write_model(model, bpe(use_regex=True), **values)
    with pytest.raises(UserError, match=f"{message}.*--to hf"):
        convert_checkpoint(model, tmp_path / "model.gguf", "gguf")
    assert not [*tmp_path.glob("*gguf*")]


def test_what_is_missing_or_wrong_is_a_sentence(model, tmp_path, monkeypatch):
    write_model(model, bpe(use_regex=True))
    with pytest.raises(UserError, match="holds float32, float16 or bfloat16, not float64"):
        convert_checkpoint(model, tmp_path / "model.gguf", "gguf", dtype=np.dtype(np.float64))
    with pytest.raises(UserError, match=r"data are for llama.cpp's pre-tokenizer"):
        convert_checkpoint(model, tmp_path / "out", "hf", data=["x.txt"])
    (tmp_path / "there.gguf").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        convert_checkpoint(model, tmp_path / "there.gguf", "gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"needs the package gguf: pip install 'clp-jax\[gguf\]'"):
        convert_checkpoint(model, tmp_path / "model.gguf", "gguf")


@pytest.mark.slow
def test_real_weights_generate_the_same(real_models, tmp_path):
    folder = real_models / "smollm2-135m"
    convert_checkpoint(folder, tmp_path / "model.gguf", "gguf")
    same_ids(folder, tmp_path / "model.gguf", 1000)
    tokenizer, ours = load_tokenizer(folder), LlamaCpp(tmp_path / "model.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer.encode("Die Hauptstadt von Frankreich ist")
    with torch.no_grad():
        expected = torch.log_softmax(theirs(torch.tensor([ids])).logits[0, -1], -1).numpy()
    found = ours.log_probabilities(ids, tokenizer.rows, tokenizer.encode(" a")[0])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    generated = theirs.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    assert ours.generate(ids, 8) == generated[0, len(ids) :].tolist()
