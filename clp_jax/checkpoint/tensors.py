"""Tensors of a Hugging Face folder, read one at a time and written as a stream."""

import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from clp_jax.errors import UserError
from clp_jax.files import inside, read_json, write_json

DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "BOOL": np.dtype(np.bool_),
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATS = {DTYPES[name] for name in ("F64", "F32", "F16", "BF16")}
"""The types of parameters; a checkpoint may hold tensors of others, which are not read."""
FLOAT_NAMES = ", ".join(sorted(map(str, FLOATS)))
MAX_SHARD_BYTES = 5 * 10**9
_CACHED = 1 << 16
"""Values checked at a time; they fit into a core's cache."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read on demand and whose values are finite.

    NaN and infinite values are refused when they are read: nothing computed from them is useful.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[slice], Shaped[np.ndarray, "..."]]
    """Reads the rows of a slice."""
    name: str = "a tensor"
    """Its file and name, for errors."""

    def read(self) -> Shaped[np.ndarray, "..."]:
        """The whole tensor.

        Raises:
            UserError: it holds NaN or an infinity.
        """
        return self._read_finite(slice(None))

    def read_rows(self, start: int, stop: int) -> Shaped[np.ndarray, "..."]:
        """The rows from ``start`` up to, but not including, ``stop``.

        Raises:
            UserError: they hold NaN or an infinity.
        """
        return self._read_finite(slice(start, min(stop, self.shape[0])))

    def _read_finite(self, rows: slice) -> Shaped[np.ndarray, "..."]:
        array = self.load(rows)
        if self.dtype in FLOATS and not all_finite(array):
            raise UserError(
                f"{self.name} holds NaN or infinite values, so the model cannot compute anything: "
                "fetch it again, or use an earlier checkpoint."
            )
        return array

    def astype(self, dtype: np.dtype | None) -> "LazyTensor":
        """The tensor in another floating-point type; integers, and a dtype of None, change nothing.

        Reading it raises a `UserError` if a value is too large for the type.
        """
        if dtype in (None, self.dtype) or self.dtype not in FLOATS:
            return self

        def load(rows: slice) -> Shaped[np.ndarray, "..."]:
            array = self._read_finite(rows)
            with np.errstate(over="ignore"):
                cast = array.astype(dtype)
            if not all_finite(cast):
                raise UserError(
                    f"{self.name} holds values that are too large for {dtype}: choose bfloat16 or "
                    "float32."
                )
            return cast

        return replace(self, dtype=dtype, load=load)

    def head(self, rows: int) -> "LazyTensor":
        """The first rows."""
        return replace(
            self,
            shape=(rows, *self.shape[1:]),
            load=lambda chosen: self.load(slice(*chosen.indices(rows))),
        )

    @property
    def nbytes(self) -> int:
        """Size of the whole tensor in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @classmethod
    def of(cls, array: Shaped[np.ndarray, "..."]) -> "LazyTensor":
        """The tensor of an array in memory."""
        return cls(array.shape, array.dtype, lambda rows: array[rows] if array.ndim else array)


def all_finite(array: Float[np.ndarray, "..."]) -> bool:
    """Whether no value is NaN or infinite, that is, has an exponent of all ones."""
    bits = np.dtype(f"u{array.dtype.itemsize}")
    ones = np.array(np.inf, array.dtype).view(bits)
    values = np.ascontiguousarray(array).reshape(-1).view(bits)
    return not any(
        ((values[start : start + _CACHED] & ones) == ones).any()
        for start in range(0, values.size, _CACHED)
    )


def parse_dtype(name: str) -> np.dtype:
    """The NumPy type called ``name``, such as ``float32`` or ``bfloat16``.

    Raises:
        UserError: it is not a floating-point type of the checkpoints.
    """
    by_name = {str(dtype): dtype for dtype in FLOATS}
    if name not in by_name:
        raise UserError(f"dtype {name!r} is not one of {FLOAT_NAMES}.")
    return by_name[name]


def open_tensors(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a folder by name, from safetensors or, with PyTorch, ``pytorch_model.bin``.

    Raises:
        UserError: there are no weights, or a file is damaged or missing.
    """
    for weights, read_file in (
        ("model.safetensors", _open_safetensors),
        ("pytorch_model.bin", _open_torch),
    ):
        if (folder / weights).exists():
            return read_file(inside(folder, weights))
        index = folder / f"{weights}.index.json"
        if index.exists():
            return _open_shards(index, read_file)
    raise UserError(f"{folder} holds no weights: model.safetensors is missing.")


def _open_shards(
    index: Path, read_file: Callable[[Path], dict[str, LazyTensor]]
) -> dict[str, LazyTensor]:
    contents = read_json(index)
    if not isinstance(contents.get("weight_map"), dict):
        raise UserError(f"{index} has no weight_map: fetch the file again.")
    weight_map: dict[str, str] = contents["weight_map"]
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise UserError(f"{index} places {name} in {file!r}, not in a file of its folder.")
    shards: dict[str, dict[str, LazyTensor]] = {}
    owners: dict[str, str] = {}
    for file in sorted(set(weight_map.values())):
        if not (index.parent / file).exists():
            raise UserError(f"{index} names {file}, which is missing: fetch it again.")
        shards[file] = read_file(inside(index.parent, file))
        for name in shards[file]:
            if owners.setdefault(name, file) != file:
                raise UserError(f"{name} is in {owners[name]} and in {file} of {index.parent}.")
    lost = [name for name, file in weight_map.items() if name not in shards[file]]
    if lost:
        raise UserError(
            f"{index} places {lost[0]} in {weight_map[lost[0]]}, which does not hold it."
        )
    return {name: shards[file][name] for name, file in weight_map.items()}


def _open_safetensors(file: Path) -> dict[str, LazyTensor]:
    try:
        handle = safe_open(file, framework="numpy")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}).") from None
    except SafetensorError as error:
        raise UserError(f"{file} is damaged ({error}): fetch it again.") from None

    def load(name: str, rows: slice) -> np.ndarray:
        # Reopened for every read: a mapping that stays open keeps what was read in memory.
        with safe_open(file, framework="numpy") as opened:
            whole = rows == slice(None)
            return opened.get_tensor(name) if whole else opened.get_slice(name)[rows]

    tensors = {}
    for name in handle.keys():  # noqa: SIM118 - not a dict
        view = handle.get_slice(name)
        if view.get_dtype() not in DTYPES:
            raise UserError(f"{file}: {name} has the unsupported type {view.get_dtype()}.")
        tensors[name] = LazyTensor(
            tuple(view.get_shape()),
            DTYPES[view.get_dtype()],
            partial(load, name),
            f"{file}: {name}",
        )
    return tensors


def _open_torch(file: Path) -> dict[str, LazyTensor]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{file} needs PyTorch to be read: pip install 'clp-jax[torch]', or convert it to "
            "safetensors."
        ) from None
    try:
        state = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error}).") from None
    except Exception:  # PyTorch's own message advises to run what the file holds.
        raise UserError(
            f"{file} is damaged or not a plain state dict: fetch it again, or save the model as "
            "safetensors."
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"{file} holds a {type(state).__name__}, not a state dict.")
    kinds = {f"torch.{dtype}": dtype for dtype in DTYPES.values()}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UserError(
                f"{file} holds more than tensors ({name!r}): save only the model's state dict."
            )
        if str(tensor.dtype) not in kinds or tensor.layout != torch.strided or tensor.is_meta:
            kind = "meta" if tensor.is_meta else f"{tensor.dtype} {tensor.layout}"
            raise UserError(
                f"{file}: {name} has the unsupported type {kind.replace('torch.', '')}."
            )

    def load(tensor: Any, rows: slice) -> np.ndarray:
        tensor = (tensor[rows] if tensor.ndim else tensor).detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return {
        name: LazyTensor(
            tuple(tensor.shape),
            kinds[str(tensor.dtype)],
            partial(load, tensor),
            f"{file}: {name}",
        )
        for name, tensor in state.items()
    }


def write_tensors(
    folder: Path,
    tensors: Mapping[str, LazyTensor],
    *,
    stem: str = "model",
    max_shard_bytes: int | None = MAX_SHARD_BYTES,
    writer: bool = True,
) -> None:
    """Write ``STEM.safetensors``, or several files and their index if the model is large.

    One tensor at a time is in memory. Without ``writer`` every tensor is read and none is written:
    that is what all but the first process of a multi-host run do.
    """
    shards: list[dict[str, LazyTensor]] = [{}]
    for name, tensor in tensors.items():
        size = sum(other.nbytes for other in shards[-1].values())
        full = max_shard_bytes is not None and size + tensor.nbytes > max_shard_bytes
        if shards[-1] and full:
            shards.append({})
        shards[-1][name] = tensor
    files = (
        [f"{stem}.safetensors"]
        if len(shards) == 1
        else [f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    with tqdm(
        total=sum(t.nbytes for t in tensors.values()),
        unit="B",
        unit_scale=True,
        desc="writing weights",
        disable=None,
        leave=False,
    ) as bar:
        for file, shard in zip(files, shards, strict=True):
            chunks = _stream(shard, bar)
            if writer:
                with (folder / file).open("wb") as out:
                    out.writelines(chunks)
            else:
                for _ in chunks:
                    pass
    if writer and len(files) > 1:
        write_json(
            folder / f"{stem}.safetensors.index.json",
            {
                "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
                "weight_map": {
                    name: file for file, shard in zip(files, shards, strict=True) for name in shard
                },
            },
        )


def _stream(shard: Mapping[str, LazyTensor], bar: Any) -> Iterator[bytes | memoryview]:
    """A safetensors file: length of the header, header, then the tensors' bytes in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in shard.items():
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield struct.pack("<Q", len(encoded)) + encoded
    for tensor in shard.values():
        array = np.ascontiguousarray(tensor.read(), tensor.dtype)
        yield array.reshape(-1).view(np.uint8).data
        bar.update(tensor.nbytes)
