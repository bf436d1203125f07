"""Runs as training leaves them, written without any training."""

import json
import math
from pathlib import Path

import pytest

CONFIGURATION = """
model: {{path: models/transferred, init: pretrained}}
data: {{train: corpora/{train}, sequence_length: 16}}
train: {{out: {out}, steps: 40, seed: {seed}}}
"""
MODEL = {
    "model_type": "gpt2",
    "n_embd": 8,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 16,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
TOKENS_PER_WORD = 1.75


def write_run(folder: Path, sets, *, train="german", seed=0, chips=4, text="a1"):
    """A run with bits per byte by validation set, measured every thousand tokens."""
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIGURATION.format(train=train, out=folder, seed=seed))
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    hashes = {"tokenizer": "t1"} | {f"validation corpus {name}".rstrip(): text for name in sets}
    devices = {"kind": "TPU v5e", "count": chips}
    record = {"parameters": 1, "hashes": hashes, "devices": devices}
    (folder / "run.json").write_text(json.dumps(record))
    lines = []
    for number in range(max(len(values) for values in sets.values())):
        line = {"step": 10 * number, "tokens": 1000 * number, "seconds": 1800.0 * number}
        for name, values in sets.items():
            nll = values[number] * math.log(2)
            under = f"validation/{name}/" if name else "validation/"
            line[f"{under}byte_perplexity"] = math.exp(nll)
            line[f"{under}token_perplexity"] = math.exp(4 * nll)
            line[f"{under}word_perplexity"] = math.exp(4 * TOKENS_PER_WORD * nll)
        lines.append(json.dumps(line) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def two_arms(tmp_path, monkeypatch):
    """Two arms of two seeds each; `replay` takes longer and forgets less."""
    monkeypatch.chdir(tmp_path)
    curves = {
        "german": {"german": [2.0, 1.5, 1.2, 1.0], "english": [1.0, 1.4, 1.5, 1.6]},
        "replay": {"german": [2.0, 1.7, 1.4, 1.2], "english": [1.0, 1.02, 1.03, 1.03]},
    }
    for arm, sets in curves.items():
        for seed in (0, 1):
            moved = {name: [x + 0.02 * seed * i for i, x in enumerate(values)]
                     for name, values in sets.items()}  # fmt: skip
            write_run(Path(f"runs/{arm}-{seed}"), moved, train=arm, seed=seed)
    return [f"runs/{arm}-{seed}" for arm in curves for seed in (0, 1)]
