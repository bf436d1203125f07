import json
import os
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from clp_jax.checkpoint.tensors import (
    LazyTensor,
    all_finite,
    open_tensors,
    parse_dtype,
    write_tensors,
)
from clp_jax.errors import UserError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(7, 5)).astype(np.float32),
        "b.half": rng.normal(size=(3, 2, 4)).astype(np.float16),
        "c.brain": rng.normal(size=(9,)).astype(ml_dtypes.bfloat16),
        "d.mask": np.tril(np.ones((4, 4), bool)),
        "e.scalar": np.array(-1e4, np.float32),
    }


def lazy(arrays):
    return {name: LazyTensor.of(array) for name, array in arrays.items()}


def assert_same(tensors, arrays):
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].dtype == array.dtype
        assert tensors[name].read().tobytes() == array.tobytes()


def test_what_is_written_is_read_by_the_safetensors_library(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays))
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].tobytes() == array.tobytes()


def test_what_the_library_writes_is_read(arrays, tmp_path):
    save_file(arrays, tmp_path / "model.safetensors")
    assert_same(open_tensors(tmp_path), arrays)


def test_large_models_are_split_and_indexed(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays), max_shard_bytes=60)
    files = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert files[0] == "model-00001-of-00003.safetensors"
    assert len(files) == 3
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert_same(open_tensors(tmp_path), arrays)


def test_rows_are_read_alone(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays))
    rows = open_tensors(tmp_path)["a"].read_rows(2, 4)
    np.testing.assert_array_equal(rows, arrays["a"][2:4])


def test_astype_changes_floats_only(arrays):
    assert lazy(arrays)["a"].astype(parse_dtype("bfloat16")).read().dtype == ml_dtypes.bfloat16
    assert lazy(arrays)["d.mask"].astype(parse_dtype("bfloat16")).read().dtype == bool


def test_unknown_dtype_is_named():
    with pytest.raises(UserError, match="'float8' is not one of bfloat16, float16"):
        parse_dtype("float8")


@pytest.mark.parametrize("legacy", [False, True])
def test_old_torch_files_are_read(arrays, tmp_path, legacy):
    state = {
        "a": torch.from_numpy(arrays["a"]),
        "b.half": torch.from_numpy(arrays["b.half"]),
        "c.brain": torch.from_numpy(arrays["c.brain"].view(np.int16)).view(torch.bfloat16),
    }
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    assert_same(open_tensors(tmp_path), {name: arrays[name] for name in state})


def test_a_pickle_with_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="or not a plain state dict: fetch it again") as error:
        open_tensors(tmp_path)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_parameters_are_read(arrays, tmp_path, legacy):
    parameter = torch.nn.Parameter(torch.from_numpy(arrays["a"]))
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": parameter}, file, _use_new_zipfile_serialization=not legacy)
    assert_same(open_tensors(tmp_path), {"a": arrays["a"]})


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ([torch.ones(2)], "holds a list, not a state dict"),
        (torch.ones(2), "holds a Tensor, not a state dict"),
        ({0: torch.ones(2)}, "holds more than tensors \\(0\\)"),
        ({"a": [torch.ones(2)]}, "holds more than tensors \\('a'\\)"),
        ({"a": torch.ones(2, device="meta")}, "a has the unsupported type meta"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a has the unsupported type complex64"),
        ({"a": torch.ones(2).to_sparse()}, "a has the unsupported type float32 sparse_coo"),
        (
            {"a": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)},
            "a has the unsupported type qint8",
        ),
    ],
)
def test_torch_files_of_anything_else_are_refused_by_name(tmp_path, state, sentence):
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=rf"pytorch_model.bin:? {sentence}"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_a_pipe_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is not a regular file"):
        open_tensors(tmp_path)


def test_files_without_permission_are_not_called_damaged(arrays, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    write_tensors(tmp_path, lazy(arrays))
    monkeypatch.setattr("clp_jax.checkpoint.tensors.safe_open", refuse)
    with pytest.raises(UserError, match=r"safetensors cannot be read .*Permission denied"):
        open_tensors(tmp_path)


def test_a_training_checkpoint_is_refused(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds more than tensors"):
        open_tensors(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"holds no weights: model.safetensors is missing"):
        open_tensors(tmp_path)


def test_truncated_file(arrays, tmp_path):
    file = tmp_path / "model.safetensors"
    write_tensors(tmp_path, lazy(arrays))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        open_tensors(tmp_path)


def test_garbage(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file at all")
    with pytest.raises(UserError, match=r"model.safetensors is damaged"):
        open_tensors(tmp_path)


def test_missing_shard(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays), max_shard_bytes=60)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"names model-00002-of-00003.safetensors, which is missing"
    ):
        open_tensors(tmp_path)


def test_an_index_that_contradicts_its_shards(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays), max_shard_bytes=60)
    index = tmp_path / "model.safetensors.index.json"
    contents = json.loads(index.read_text())
    contents["weight_map"]["a"] = "model-00003-of-00003.safetensors"
    index.write_text(json.dumps(contents))
    with pytest.raises(UserError, match="places a in model-00003"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("place", ["../model-00001-of-00003.safetensors", "/x.safetensors", 3, ""])
def test_an_index_that_points_elsewhere(arrays, tmp_path, place):
    folder = tmp_path / "model"
    folder.mkdir()
    write_tensors(folder, lazy(arrays), max_shard_bytes=60)
    shutil.copy(folder / "model-00001-of-00003.safetensors", tmp_path)
    index = folder / "model.safetensors.index.json"
    contents = json.loads(index.read_text())
    contents["weight_map"]["a"] = place
    index.write_text(json.dumps(contents))
    with pytest.raises(UserError, match=r"places a in .*, not in a file of its folder"):
        open_tensors(folder)


def test_a_tensor_in_two_shards(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays), max_shard_bytes=60)
    second = tmp_path / "model-00002-of-00003.safetensors"
    save_file(load_file(second) | {"a": arrays["a"] * 0}, second)
    with pytest.raises(UserError, match=r"a is in model-00001.* and in model-00002"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_is_found(monkeypatch, dtype, value):
    monkeypatch.setattr("clp_jax.checkpoint.tensors._CACHED", 8)
    array = np.array([0.0, -0.0, 1e-42, 3e38, -6e4] * 5).clip(-6e4, 6e4).astype(dtype)
    assert all_finite(array.reshape(5, 5).T)
    for place in (0, 7, 8, 24):
        broken = array.copy()
        broken[place] = value
        assert not all_finite(broken)
        with pytest.raises(UserError, match="a tensor holds NaN or infinite values"):
            LazyTensor.of(broken).read_rows(place, place + 1)


def test_unsupported_type_is_named(tmp_path):
    save_torch({"x": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="x has the unsupported type C64"):
        open_tensors(tmp_path)


def test_header_is_aligned(arrays, tmp_path):
    write_tensors(tmp_path, lazy(arrays))
    (length,) = struct.unpack("<Q", (tmp_path / "model.safetensors").read_bytes()[:8])
    assert length % 8 == 0


def test_head_is_the_first_rows():
    table = np.arange(12.0).reshape(6, 2)
    head = LazyTensor.of(table).head(4)
    assert head.shape == (4, 2)
    np.testing.assert_array_equal(head.read(), table[:4])
    np.testing.assert_array_equal(head.read_rows(2, 9), table[2:4])
