import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from jax.sharding import PartitionSpec
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.checkpoint.hub import copy_model_files
from clp_jax.checkpoint.orbax import save_params
from clp_jax.checkpoint.tensors import open_tensors
from clp_jax.convert import convert_checkpoint
from clp_jax.errors import UserError
from clp_jax.mesh import make_mesh


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy that the test may change."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


TOKENS = jnp.arange(24).reshape(2, 12)


def test_names_without_prefix_and_buffers_are_understood(folder, tiny_model):
    def old_layout(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        attention = "attn" if "wte.weight" in tensors else "self_attention"
        tensors[f"h.0.{attention}.bias"] = np.tril(np.ones((1, 1, 64, 64), np.uint8))
        tensors[f"h.1.{attention}.masked_bias"] = np.array(-1e4, np.float32)

    expected = load_model(tiny_model)(TOKENS)
    change_tensors(folder, old_layout)
    np.testing.assert_array_equal(load_model(folder)(TOKENS), expected)


def embedding_name(folder):
    return next(name for name in open_tensors(folder) if "wte" in name or "embeddings.w" in name)


def test_a_copy_of_the_tied_head_is_fine(folder, tiny_model):
    name = embedding_name(folder)
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[name].copy()}))
    np.testing.assert_array_equal(load_model(folder)(TOKENS), load_model(tiny_model)(TOKENS))


def test_another_tied_head_is_refused(folder):
    name = embedding_name(folder)
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[name] + 1}))
    with pytest.raises(UserError, match=r"lm_head.weight differs from transformer"):
        load_model(folder)


def test_one_tensor_under_two_names_is_refused(folder):
    name = embedding_name(folder)
    short = name.removeprefix("transformer.")
    change_tensors(folder, lambda tensors: tensors.update({short: tensors[name] * 0}))
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert f"{name} and {short} are the same tensor" in str(error.value)


@pytest.mark.parametrize("dtype", ["int8", "bool", "float8_e4m3fn"])
@pytest.mark.parametrize("name", ["its table", "lm_head.weight"])
def test_weights_that_are_not_floats_are_refused(folder, dtype, name):
    name, file = name.replace("its table", embedding_name(folder)), folder / "model.safetensors"
    tensors = {key: torch.from_numpy(value) for key, value in load_file(file).items()}
    table = tensors[embedding_name(folder)]
    save_torch_file(tensors | {name: table.to(getattr(torch, dtype))}, file)
    with pytest.raises(UserError, match=rf"{name} has the type {dtype}, not one of bfloat16, f"):
        load_model(folder)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nan_in_weights_is_refused(folder, value):
    def spoil(tensors):
        tensors["transformer.ln_f.bias"][3] = value

    change_tensors(folder, spoil)
    with pytest.raises(UserError, match=r"safetensors: transformer\.ln_f\.bias holds NaN or inf"):
        load_model(folder)


def test_a_run_with_nan_in_its_weights_is_refused(tiny_model, tmp_path):
    model = load_model(tiny_model)
    model.final_norm.bias[...] = model.final_norm.bias[...].at[3].set(jnp.nan)
    (tmp_path / "run" / "model").mkdir(parents=True)
    copy_model_files(tiny_model, tmp_path / "run" / "model")
    save_params(tmp_path / "run", nnx.to_pure_dict(nnx.state(model)))
    with pytest.raises(UserError, match=r"run: final_norm\.bias holds values that are NaN"):
        load_model(tmp_path / "run")
    with pytest.raises(UserError, match=r"transformer\.ln_f\.bias holds NaN"):
        save_model(model, tmp_path / "out", origin=tiny_model)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("unpadded", [0, -1, 301, 10**6, "300", True])
def test_more_tokens_than_rows_are_refused(folder, unpadded):
    change_config(folder, unpadded_vocab_size=unpadded)
    with pytest.raises(UserError, match=r"unpadded_vocab_size is .*, but must be from 1"):
        load_model(folder)


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_no_program_that_a_model_names_survives(folder, tmp_path):
    change_config(folder, auto_map={"AutoModelForCausalLM": "x--evil.Model"}, custom_pipelines={})
    file = folder / "tokenizer_config.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps(tokenizer | {"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    convert_checkpoint(folder, tmp_path / "run", "orbax")
    convert_checkpoint(tmp_path / "run", tmp_path / "out", "hf")
    for out in ("run/model", "out"):
        for name in ("config.json", "tokenizer_config.json"):
            values = json.loads((tmp_path / out / name).read_text())
            assert values.keys().isdisjoint({"auto_map", "custom_pipelines"})
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == tokenizer


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json"])
def test_files_next_to_a_model_are_checked_before_they_are_copied(folder, tmp_path, name):
    (folder / name).write_text("[]")
    with pytest.raises(UserError, match=f"{name} must hold a JSON object"):
        save_model(load_model(folder), tmp_path / "out", origin=folder)
    assert not (tmp_path / "out").exists()


def test_all_faults_are_reported_at_once(folder):
    name = embedding_name(folder)

    def spoil(tensors):
        del tensors["transformer.ln_f.bias"]
        tensors["transformer.h.0.adapter"] = np.zeros(3, np.float32)
        tensors[name] = tensors[name][:-1]

    change_tensors(folder, spoil)
    with pytest.raises(UserError) as error:
        load_model(folder)
    text = str(error.value)
    assert "transformer.ln_f.bias is missing" in text
    assert "transformer.h.0.adapter is not part of this model" in text
    assert f"{name} has the shape (299, 32), not (300, 32)" in text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_type": "t5"}, "model_type t5 is not supported; choose one of gpt2, bloom, llama"),
        ({"add_cross_attention": True}, "add_cross_attention=True is not supported"),
        ({"quantization_config": {"bits": 4}}, "the weights are quantised"),
    ],
)
def test_unsupported_configurations_are_refused_by_name(folder, values, sentence):
    change_config(folder, **values)
    with pytest.raises(UserError, match=sentence):
        load_model(folder)


def test_heads_that_do_not_divide_are_refused(folder):
    change_config(folder, n_head=5)
    with pytest.raises(UserError, match="32 is not a multiple of the 5 attention heads"):
        load_model(folder)


def test_unknown_activation_is_refused_by_name(folder):
    change_config(folder, model_type="gpt2", activation_function="mish")
    with pytest.raises(UserError, match="activation function 'mish' is not supported"):
        load_model(folder)


def test_missing_and_damaged_configuration(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is not valid JSON"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config.json is missing"):
        load_model(folder)


def test_a_mesh_that_does_not_divide_is_refused(tiny_model):
    with pytest.raises(UserError, match="fsdp=3 does not divide the model's embed dimension of 32"):
        load_model(tiny_model, mesh=make_mesh(fsdp=3, devices=jax.devices()[:3]))


def test_parameters_go_to_their_places(tiny_model):
    model = load_model(tiny_model, mesh=make_mesh(2, 2, 2))
    kernel = model.blocks.attention.qkv.kernel[...]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", None, "tensor", None)
    assert kernel.addressable_shards[0].data.shape == (2, 16, 3, 2, 8)


def test_dtype_is_kept_or_chosen(folder, tmp_path):
    half = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float16")
    half.save_pretrained(folder)
    model = load_model(folder)
    assert model.token_embedding.embedding[...].dtype == jnp.float16
    save_model(model, tmp_path / "kept", origin=folder)
    save_model(load_model(folder, dtype="float32"), tmp_path / "chosen", origin=folder)
    for out, dtype in (("kept", "float16"), ("chosen", "float32")):
        assert {str(t.dtype) for t in open_tensors(tmp_path / out).values()} == {dtype}
        assert json.loads((tmp_path / out / "config.json").read_text())["dtype"] == dtype


def test_export_carries_everything_a_user_needs(tiny_model, tmp_path):
    save_model(load_model(tiny_model), tmp_path / "out", origin=tiny_model)
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files >= {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        tiny_model / "tokenizer.json"
    ).read_bytes()
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert f"# {tiny_model.name}\n" in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "out" / "README.md").write_text("# Mine\n")
    save_model(load_model(tiny_model), tmp_path / "again", origin=tmp_path / "out")
    assert (tmp_path / "again" / "README.md").read_text() == "# Mine\n"


def test_an_existing_folder_is_not_touched(tiny_model, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        save_model(load_model(tiny_model), tmp_path, origin=tiny_model)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_failed_export_leaves_nothing(tiny_model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("clp_jax.checkpoint.hf.write_tensors", fail)
    with pytest.raises(OSError, match="No space"):
        save_model(load_model(tiny_model), tmp_path / "out", origin=tiny_model)
    assert not list(tmp_path.iterdir())


def test_rows_for_no_token_are_dropped_on_export(tiny_model, tmp_path):
    padded, out = tmp_path / "padded", tmp_path / "out"
    shutil.copytree(tiny_model, padded)
    config = json.loads((padded / "config.json").read_text())
    (padded / "config.json").write_text(json.dumps(config | {"unpadded_vocab_size": 290}))
    settings = {"suppress_tokens": [5, 290, 299], "temperature": 0.5}
    (padded / "generation_config.json").write_text(json.dumps(settings))
    save_model(load_model(padded), out, origin=padded)

    written = json.loads((out / "config.json").read_text())
    assert written["vocab_size"] == 290
    assert "unpadded_vocab_size" not in written
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings == {"suppress_tokens": [5], "temperature": 0.5}
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(notes.values())
    whole = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    table = model.get_input_embeddings().weight
    assert table.shape[0] == 290
    assert (table == whole.get_input_embeddings().weight[:290]).all()
