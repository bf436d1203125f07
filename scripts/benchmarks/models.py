"""Configurations of published models, and runs on them that need no weights."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clp_jax.config import RunConfig

IDS = {"bos_token_id": 0, "eos_token_id": 0}


def gpt2(width: int, layers: int, heads: int, vocabulary: int = 50257) -> dict[str, Any]:
    sizes = {"vocab_size": vocabulary, "n_embd": width, "n_layer": layers, "n_head": heads}
    no_dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return {"model_type": "gpt2", "n_positions": 1024, **sizes, **no_dropout, **IDS}


def bloom(width: int, layers: int, heads: int, vocabulary: int = 250880) -> dict[str, Any]:
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "n_layer": layers, "n_head": heads}
    return {"model_type": "bloom", **sizes, **IDS}


def llama(
    width: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": inner}
    depth = {"num_hidden_layers": layers, "num_attention_heads": heads}
    kinds = {"num_key_value_heads": kv_heads, "max_position_embeddings": 131072, **more}
    return {"model_type": "llama", **sizes, **depth, **kinds, **IDS}


def gemma3(width: int, inner: int, layers: int, window: int) -> dict[str, Any]:
    sizes = {"vocab_size": 262144, "hidden_size": width, "intermediate_size": inner}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256}
    depth = {"num_hidden_layers": layers, "sliding_window": window}
    scale = {"query_pre_attn_scalar": 256, "max_position_embeddings": 32768}
    return {"model_type": "gemma3_text", **sizes, **heads, **depth, **scale, **IDS}


LLAMA3_ROPE = {
    **{"rope_type": "llama3", "rope_theta": 500000.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}


MODELS: Mapping[str, dict[str, Any]] = {
    "tiny": gpt2(128, 4, 4, vocabulary=2048),
    "tiny-llama": llama(128, 256, 4, 4, 2, 2048),
    "gpt2": gpt2(768, 12, 12),
    "gpt2-medium": gpt2(1024, 24, 16),
    "gpt2-xl": gpt2(1600, 48, 25),
    "bloom-560m": bloom(1024, 24, 16),
    "bloom-1b7": bloom(2048, 24, 16),
    "bloom-3b": bloom(2560, 30, 32),
    "bloom-7b1": bloom(4096, 30, 32),
    "smollm2-135m": llama(576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True),
    "llama-3.2-1b": llama(
        *(2048, 8192, 16, 32, 8, 128256),
        tie_word_embeddings=True,
        rope_parameters=LLAMA3_ROPE | {"factor": 32.0},
    ),
    "llama-3.1-8b": llama(
        *(4096, 14336, 32, 32, 8, 128256), rope_parameters=LLAMA3_ROPE | {"factor": 8.0}
    ),
    "gemma-3-270m": gemma3(640, 2048, 18, window=512),
    "gemma-3-1b": gemma3(1152, 6912, 26, window=512),
}


def write_model_files(folder: Path, model: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Write a model without weights; the tokens of its tokenizer are numbers, one for each row."""
    (folder / "config.json").write_text(json.dumps(model))
    words = {str(id): id for id in range(model["vocab_size"])}
    core = Tokenizer(models.WordLevel(words, unk_token="0"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="0")
    tokenizer.save_pretrained(folder)
    return tokenizer


@contextmanager
def run_config(model: Mapping[str, Any], length: int, **train: Any) -> Iterator[RunConfig]:
    """A run on a model whose configuration is in a folder as long as this lasts."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model))
        yield RunConfig.from_dict(
            {
                "model": {"path": folder},
                "data": {"train": "none", "sequence_length": length},
                "train": {"out": "none", "steps": 1000, **train},
            }
        )
