"""Adapters: what is trained and what stays, on meshes and after a resume, merged and in PEFT."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import peft
import pytest
import torch
import transformers
from flax import nnx

from clp_jax.checkpoint.hf import load_adapters, load_model
from clp_jax.config import RunConfig
from clp_jax.convert import convert_checkpoint
from clp_jax.data.corpus.store import write_corpus
from clp_jax.errors import UserError
from clp_jax.mesh import single_device_mesh
from clp_jax.models import abstract_model, abstract_parameters, read_decoder_config
from clp_jax.models.lora import Adapter
from clp_jax.train.flops import step_flops_per_token
from clp_jax.train.inputs import open_inputs
from clp_jax.train.loop import train_model
from clp_jax.train.optimizer import make_optimizer, trainable
from clp_jax.train.step import abstract_optimizer, make_train_step

from ..marks import slow
from .conftest import leaves, sentences, write_model_files

SMALL = {"num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4}
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "llama": {**SMALL, "hidden_size": 32, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "gemma3_text": {**SMALL, "hidden_size": 32, "num_key_value_heads": 2, "head_dim": 8},
}
TOKENS = jnp.arange(24).reshape(2, 12) * 7 % 300


@pytest.fixture(scope="module", params=["gpt2", *map(slow, ("bloom", "llama", "gemma3_text"))])
def base(request, tmp_path_factory):
    """A folder with ``model``, weights of PyTorch included, and a corpus ``train``."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "model").mkdir()
    config = transformers.AutoConfig.for_model(
        request.param, vocab_size=304, bos_token_id=0, eos_token_id=0, **KINDS[request.param]
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer = write_model_files(folder / "model", config.to_dict() | {"dtype": "float32"})
    write_corpus(sentences(100, 0), tokenizer, folder / "train")
    return folder


@pytest.fixture
def settings(base, tmp_path):
    return {
        "model": {"path": str(base / "model"), "dropout": 0.0},
        "data": {"train": str(base / "train"), "sequence_length": 16},
        "mesh": {"fsdp": 4, "tensor": 2},
        "optimizer": {"learning_rate": 0.05, "schedule": "constant"},
        "lora": {"r": 4, "alpha": 12},
        "train": {
            "out": str(tmp_path / "run"),
            "steps": 4,
            "batch_size": 8,
            "checkpoint_every": 2,
            "dtype": "float32",
        },
    }


def torch_logits(model):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(TOKENS))).logits.float().numpy()


@pytest.mark.slow
def test_adapters_merge_and_peft_applies_them(base, settings, tmp_path):
    """The layers change by their adapters alone, and three programs agree on the result."""
    settings["optimizer"]["lr_multipliers"] = {"embeddings": 0.1}
    train_model(RunConfig.from_dict(settings))
    run = settings["train"]["out"]

    applied = load_adapters(run)
    merged, before = load_model(run), load_model(base / "model")
    logits = np.asarray(applied(TOKENS))
    assert np.abs(logits - np.asarray(before(TOKENS))).max() > 0.1
    np.testing.assert_allclose(merged(TOKENS), logits, atol=2e-5 * np.abs(logits).max())
    assert jax.tree.structure(nnx.state(merged)) == jax.tree.structure(nnx.state(before))
    np.testing.assert_array_equal(
        jax.tree.leaves(nnx.state(merged.final_norm))[0],
        jax.tree.leaves(nnx.state(before.final_norm))[0],
    )

    convert_checkpoint(run, tmp_path / "hf", "hf")
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    np.testing.assert_allclose(torch_logits(exported), logits, atol=2e-5 * np.abs(logits).max())

    convert_checkpoint(run, tmp_path / "adapter", "peft")
    assert {file.name for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    torch_base = transformers.AutoModelForCausalLM.from_pretrained(base / "model")
    adapted = peft.PeftModel.from_pretrained(torch_base, tmp_path / "adapter")
    np.testing.assert_allclose(torch_logits(adapted), logits, atol=2e-5 * np.abs(logits).max())

    half = np.dtype(ml_dtypes.bfloat16)
    convert_checkpoint(run, tmp_path / "half", "hf", dtype=half)
    rounded = load_model(tmp_path / "half")
    for ours, theirs in zip(
        jax.tree.leaves(nnx.state(merged)), jax.tree.leaves(nnx.state(rounded)), strict=True
    ):
        assert theirs.dtype == half
        np.testing.assert_array_equal(np.asarray(ours).astype(half), np.asarray(theirs))


def planned(lora):
    """What the compiler says of a step, and the model with its trained parameters."""
    config = RunConfig.from_dict(
        {
            "model": {"path": "model"},
            "data": {"train": "train", "sequence_length": 32},
            "lora": lora,
            "train": {"out": "out", "steps": 2, "batch_size": 2},
        }
    )
    values = transformers.LlamaConfig(
        vocab_size=256, hidden_size=256, intermediate_size=512, num_hidden_layers=4
    )
    decoder = read_decoder_config(values.to_dict())
    model = abstract_model(replace(decoder, lora=config.lora if lora else None))
    mesh, optimizer = single_device_mesh(), make_optimizer(config.optimizer, config.train.steps)
    shapes = abstract_parameters(model, mesh)
    state = abstract_optimizer(optimizer, shapes, mesh)
    step = make_train_step(
        nnx.graphdef(model), shapes, optimizer, mesh=mesh, config=config, eos_id=0
    )
    flops = step_flops_per_token(model, config, None)
    return step.memory_analysis(), flops, trainable(shapes, config.optimizer), state.updates


def sizes(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_what_stays_has_no_gradient_and_no_optimizer_state():
    memory, flops, trained, state = planned({"r": 4})
    full, full_flops, whole, _ = planned({})
    assert sizes(trained) == 4 * 4 * (4 * (256 + 256) + 3 * (256 + 512))
    assert sizes(state) == 2 * sizes(trained) + 1
    saved = full.argument_size_in_bytes - memory.argument_size_in_bytes
    assert saved == pytest.approx(4 * (2 * sizes(whole) - 3 * sizes(trained)), rel=1e-3)
    gradients = 4 * (sizes(whole) - sizes(trained))
    assert full.temp_size_in_bytes - memory.temp_size_in_bytes > 0.8 * gradients
    assert 0.6 < flops / full_flops < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("base", ["gpt2"], indirect=True)
@pytest.mark.parametrize("name", ["adafactor", "muon", "lion"])
def test_every_optimizer_trains_adapters(settings, name):
    settings["optimizer"]["name"] = name
    settings["train"] |= {"steps": 2, "gradient_accumulation_steps": 2}
    settings["mesh"] = {"fsdp": 2, "data": 2, "tensor": 2}
    train_model(RunConfig.from_dict(settings))
    after = load_adapters(settings["train"]["out"])
    assert np.abs(after.blocks.mlp.up.lora.b[...]).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("base", ["gpt2"], indirect=True)
def test_the_mesh_and_a_resume_do_not_change_the_adapters(settings, tmp_path):
    train_model(RunConfig.from_dict(settings))
    whole = settings["train"]["out"]

    settings["mesh"] = {"fsdp": 1, "data": 8}
    settings["train"]["out"] = str(tmp_path / "copies")
    train_model(RunConfig.from_dict(settings))
    for a, b in zip(leaves(whole), leaves(tmp_path / "copies"), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)

    settings["mesh"] = {"fsdp": 4, "tensor": 2}
    settings["train"] |= {"out": str(tmp_path / "halves"), "steps": 2}
    train_model(RunConfig.from_dict(settings))
    settings["train"]["steps"] = 4
    train_model(RunConfig.from_dict(settings), resume=True)
    for a, b in zip(leaves(whole), leaves(tmp_path / "halves"), strict=True):
        np.testing.assert_array_equal(a, b)
    settings["lora"]["r"] = 2
    with pytest.raises(UserError, match=r"lora\.r was 4 and is 2"):
        train_model(RunConfig.from_dict(settings), resume=True)


@pytest.mark.parametrize("base", ["gpt2"], indirect=True)
def test_only_the_named_layers_get_adapters(settings, base):
    settings["lora"] = {"r": 2, "target_modules": ["attn.c_proj", "c_attn"]}
    decoder = open_inputs(RunConfig.from_dict(settings)).decoder
    blocks = abstract_model(decoder).blocks
    assert isinstance(blocks.attention.qkv.lora, Adapter)
    assert isinstance(blocks.attention.out.lora, Adapter)
    assert blocks.mlp.up.lora is blocks.mlp.down.lora is None
    settings["lora"]["target_modules"] = ["q_proj"]
    with pytest.raises(UserError, match=r"names q_proj, but .* are c_attn, c_fc, c_proj: choose"):
        abstract_model(open_inputs(RunConfig.from_dict(settings)).decoder)
    with pytest.raises(UserError, match=r"has no adapters: name a training run whose lora\.r"):
        convert_checkpoint(base / "model", base / "none", "peft")
    assert not (base / "none").exists()


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("model", {"init": "random"}, "adapters add to trained layers"),
        ("optimizer", {"lr_multipliers": {"layers": 0}}, "lr_multipliers freeze the layers: set"),
        ("optimizer", {"embeddings_only_steps": 1}, "lora freezes embeddings"),
        ("lora", {"r": 0, "alpha": 1}, "alpha would be ignored, because r is 0"),
        ("lora", {"target_modules": []}, "target_modules is empty"),
    ],
)
def test_settings_that_adapters_contradict_are_refused(section, keys, message):
    settings = {
        "model": {"path": "m"},
        "data": {"train": "t"},
        "lora": {"r": 4},
        "train": {"out": "o", "steps": 2},
    }
    settings[section] = settings.get(section, {}) | keys
    with pytest.raises(UserError, match=message):
        RunConfig.from_dict(settings)
