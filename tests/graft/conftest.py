import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from clp_jax.models import read_decoder_config, weight_table

MODERN = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
}
KINDS = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    **dict.fromkeys(("llama", "qwen2", "qwen3", "gemma3_text"), MODERN),
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT = ["<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path, text: str, special: list[str], template: str | None, **roles):
    """A byte-level BPE of a text; ``roles`` are ``eos_token`` and so on."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        [text] * 20, vocab_size=280, special_tokens=special, show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **roles)
    tokenizer.add_tokens(
        [AddedToken(token, special=True) for token in special], special_tokens=True
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def write_weights(folder: Path, seed: int, near: Path | None = None, **values):
    """Random weights, or those of a model plus a tenth of random ones where shapes are equal."""
    config = {"bos_token_id": 0, "eos_token_id": 0, **values}
    (folder / "config.json").write_text(json.dumps(config))
    decoder = read_decoder_config(config)
    random = np.random.default_rng(seed)
    known = load(near) if near else {}
    tensors = {}
    for weight in weight_table(decoder):
        for name in weight.names(decoder.num_layers):
            shape = weight.checkpoint_shape(decoder.sizes)
            fresh = random.standard_normal(shape, np.float32)
            old = known.get(name)
            tensors[name] = (
                fresh if old is None or old.shape != shape else old + np.float32(0.1) * fresh
            )
    save_file(tensors, folder / "model.safetensors")


def load(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a folder."""
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def family(request, tmp_path):
    """A base, its instruct model, and a model of another vocabulary; the parameter is the kind."""
    kind, tied = getattr(request, "param", ("llama", True))
    base, instruct, adapted = (tmp_path / name for name in ("base", "instruct", "adapted"))
    english, german = "The cat sleeps on the roof.", "Die Katze schläft auf dem Dach."
    ends = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    chat = {"eos_token": CHAT[1], "bos_token": "<|endoftext|>"}
    settings = {"model_type": kind, "tie_word_embeddings": tied, **KINDS[kind]}
    rows = write_tokenizer(base, english, ["<|endoftext|>", *CHAT], None, **ends)
    write_tokenizer(instruct, english, ["<|endoftext|>", *CHAT], CHATML, **chat)
    (instruct / "generation_config.json").write_text('{"eos_token_id": [2, 0], "top_p": 0.9}')
    write_weights(base, 0, vocab_size=rows, **settings)
    write_weights(instruct, 1, base, vocab_size=rows, **settings)
    rows = write_tokenizer(adapted, german, ["</s>"], None, eos_token="</s>")
    write_weights(adapted, 2, base, vocab_size=rows, **settings)
    return base, instruct, adapted
