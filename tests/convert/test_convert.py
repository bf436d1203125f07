import shutil

import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from safetensors.numpy import load_file, save_file

from clp_jax.checkpoint.hf import load_model
from clp_jax.checkpoint.tensors import open_tensors
from clp_jax.convert import convert_checkpoint
from clp_jax.errors import UserError
from clp_jax.mesh import make_mesh


def test_a_round_trip_is_bit_exact(tiny_model, tmp_path):
    convert_checkpoint(tiny_model, tmp_path / "orbax", "orbax", mesh=make_mesh(2, 2, 2))
    convert_checkpoint(tmp_path / "orbax", tmp_path / "hf", "hf")
    before, after = open_tensors(tiny_model), open_tensors(tmp_path / "hf")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].read().tobytes() == after[name].read().tobytes()
    for file in ("tokenizer.json", "generation_config.json"):
        assert (tmp_path / "hf" / file).read_bytes() == (tiny_model / file).read_bytes()


def test_half_precision_stays_half(tiny_model, tmp_path):
    convert_checkpoint(tiny_model, tmp_path / "half", "hf", dtype=np.dtype(np.float16))
    convert_checkpoint(tmp_path / "half", tmp_path / "orbax", "orbax")
    convert_checkpoint(tmp_path / "orbax", tmp_path / "again", "hf")
    before, after = open_tensors(tmp_path / "half"), open_tensors(tmp_path / "again")
    for name in before:
        assert after[name].dtype == np.float16
        assert before[name].read().tobytes() == after[name].read().tobytes()


@pytest.mark.parametrize("tiny_model", ["gpt2"], indirect=True)
def test_weights_too_large_for_half_precision_are_reported(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.h.0.mlp.c_fc.weight"][0, 0] = 1e5
    save_file(tensors, folder / "model.safetensors")
    convert_checkpoint(folder, tmp_path / "brain", "hf", dtype=np.dtype(ml_dtypes.bfloat16))
    convert_checkpoint(folder, tmp_path / "run", "orbax")
    for source in (folder, tmp_path / "brain", tmp_path / "run"):
        with pytest.raises(UserError, match=r"mlp\.(c_fc\.weight|up\.kernel) holds .*too large"):
            convert_checkpoint(source, tmp_path / "half", "hf", dtype=np.dtype(np.float16))
    assert not (tmp_path / "half").exists()


def test_an_orbax_folder_is_loaded_on_a_mesh(tiny_model, tmp_path):
    convert_checkpoint(tiny_model, tmp_path / "orbax", "orbax")
    model = load_model(tmp_path / "orbax", mesh=make_mesh(1, 4, 2))
    assert model.token_embedding.embedding[...].sharding.spec == PartitionSpec("tensor", "fsdp")


def test_unknown_format(tiny_model, tmp_path):
    with pytest.raises(UserError, match="to: Input should be 'hf', 'orbax', 'peft' or 'gguf'"):
        convert_checkpoint(tiny_model, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())
