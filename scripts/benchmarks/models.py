"""Configurations of published models, and runs on them that need no weights."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clp_jax.config import RunConfig

IDS = {"bos_token_id": 0, "eos_token_id": 0}


def gpt2(width: int, layers: int, heads: int, vocabulary: int = 50257) -> dict[str, Any]:
    sizes = {"vocab_size": vocabulary, "n_embd": width, "n_layer": layers, "n_head": heads}
    no_dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return {"model_type": "gpt2", "n_positions": 1024, **sizes, **no_dropout, **IDS}


def bloom(width: int, layers: int, heads: int, vocabulary: int = 250880) -> dict[str, Any]:
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "n_layer": layers, "n_head": heads}
    return {"model_type": "bloom", **sizes, **IDS}


MODELS: Mapping[str, dict[str, Any]] = {
    "tiny": gpt2(128, 4, 4, vocabulary=2048),
    "gpt2": gpt2(768, 12, 12),
    "gpt2-medium": gpt2(1024, 24, 16),
    "gpt2-xl": gpt2(1600, 48, 25),
    "bloom-560m": bloom(1024, 24, 16),
    "bloom-1b7": bloom(2048, 24, 16),
    "bloom-3b": bloom(2560, 30, 32),
    "bloom-7b1": bloom(4096, 30, 32),
}


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
