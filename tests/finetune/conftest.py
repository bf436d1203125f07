"""A tiny model with random weights, and a task whose answers a word gives away."""

import json
import random

import pytest
import yaml

from clp_jax.checkpoint.hf import save_model
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config

from ..train.conftest import write_model_files

KIND, RUDE, OTHERS = ("Wiese", "Kuchen"), ("Lump", "Depp"), ("so", "und", "gar", "heute")
PLANTED = {
    "task": "planted",
    "dataset_path": "json",
    "training_split": "train",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}} :",
    "doc_to_choice": ["k", "r"],
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}


def tweets(count, seed):
    """Every third one is rude."""
    draw = random.Random(seed)
    for i in range(count):
        words = draw.choices(OTHERS, k=4)
        words.insert(draw.randrange(5), draw.choice(KIND if i % 3 else RUDE))
        yield {"text": " ".join(words), "label": int(i % 3 == 0)}


@pytest.fixture(scope="session")
def include_path(tmp_path_factory):
    """A folder with the task `planted`."""
    folder = tmp_path_factory.mktemp("planted")
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    for split, count in (("train", 240), ("test", 120)):
        rows = [json.dumps(tweet) for tweet in tweets(count, split)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows), "utf-8")
    task = PLANTED | {"dataset_kwargs": {"data_files": files}}
    (folder / "planted.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A Hugging Face folder."""
    folder = tmp_path_factory.mktemp("models")
    values = {
        **{"model_type": "gpt2", "vocab_size": 304, "bos_token_id": 0, "eos_token_id": 0},
        **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.2},
    }
    (folder / "files").mkdir()
    write_model_files(folder / "files", values, [tweet["text"] for tweet in tweets(60, "words")])
    random_one = initialize(read_decoder_config(values), seed=0, mesh=single_device_mesh())
    save_model(random_one, folder / "random", origin=folder / "files")
    return folder / "random"
