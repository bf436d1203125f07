"""Tiny models and tokenizers, written without PyTorch."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
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
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2", "gemma3_text"), MODERN
    ),
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


def write_weights(folder: Path, seed: int, near: Path | None = None, scale: float = 1.0, **values):
    """Random weights, or those of a model plus a tenth of random ones where shapes are equal.

    With a smaller scale, the factors of norms are about one, as in real models.
    """
    config = {"bos_token_id": 0, "eos_token_id": 0, **values}
    (folder / "config.json").write_text(json.dumps(config))
    decoder, kind = read_decoder_config(config), config["model_type"]
    random = np.random.default_rng(seed)
    known = load(near) if near else {}
    tensors = {}
    for weight in weight_table(decoder):
        for name in weight.names(decoder.num_layers):
            shape = weight.checkpoint_shape(decoder.sizes)
            fresh = np.float32(scale) * random.standard_normal(shape, np.float32)
            if scale < 1 and re.search(r"norm(_\d)?\.scale$", weight.path) and "gemma" not in kind:
                fresh += np.float32(1)
            old = known.get(name)
            tensors[name] = (
                fresh if old is None or old.shape != shape else old + np.float32(0.1) * fresh
            )
    save_file(tensors, folder / "model.safetensors")


def load(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a folder."""
    return load_file(folder / "model.safetensors")
