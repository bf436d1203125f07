"""A tiny model, its tokenizer and two corpora, all made here."""

import json

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from clp_jax.checkpoint.hf import load_model
from clp_jax.data.corpus.store import write_corpus
from clp_jax.train import loop
from clp_jax.train.metrics import read_metrics

ANIMALS = ("Katze", "Hund", "Maus", "Kuh", "Gans")
VERBS = ("sieht", "hört", "jagt", "mag")
CONFIG = {
    "model_type": "gpt2",
    "vocab_size": 304,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def sentences(count, shift):
    for i in range(shift, shift + count):
        subject, verb = ANIMALS[i % 5], VERBS[i % 4]
        yield f"Die {subject} {verb} {i} mal {'die ' + ANIMALS[(i * 7) % 5]}."


def write_model_files(folder, config, texts=None):
    """A Hugging Face folder without weights, which a random start does not need."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts or sentences(50, 0), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return fast


def events(file):
    """TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    data = file.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def without_times(folder):
    """The lines of a run's metrics but for what the clock says."""
    times = ("seconds", "speed/", "time/", "memory/")
    return [
        {key: value for key, value in line.items() if not key.startswith(times)}
        for line in read_metrics(folder)
    ]


def leaves(folder):
    """The parameters of a run's newest checkpoint."""
    return jax.device_get(jax.tree.leaves(load_model(folder)))


def on_step(monkeypatch, index, action):
    """Let ``action`` get the batch of the step with this index before the step does."""
    make_train_step = loop.make_train_step

    def make_disturbed_step(*args, **kwargs):
        step = make_train_step(*args, **kwargs)

        def disturbed(params, optimizer_state, i, batch):
            if i == index:
                action(batch)
            return step(params, optimizer_state, i, batch)

        return disturbed

    monkeypatch.setattr(loop, "make_train_step", make_disturbed_step)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder with ``model``, ``train`` and ``validation``."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "model").mkdir()
    tokenizer = write_model_files(folder / "model", CONFIG)
    write_corpus(sentences(100, 0), tokenizer, folder / "train")
    write_corpus(sentences(10, 1000), tokenizer, folder / "validation")
    return folder


@pytest.fixture
def settings(inputs, tmp_path):
    """A small run's configuration as a nested dict."""
    return {
        "model": {"path": str(inputs / "model"), "init": "random"},
        "data": {
            "train": str(inputs / "train"),
            "validation": str(inputs / "validation"),
            "sequence_length": 16,
        },
        "mesh": {"data": 1, "fsdp": 2, "tensor": 4},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 3},
        "train": {
            "out": str(tmp_path / "run"),
            "steps": 4,
            "batch_size": 8,
            "log_every": 1,
            "validate_every": 2,
            "checkpoint_every": 2,
        },
    }
