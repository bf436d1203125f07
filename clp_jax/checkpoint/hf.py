"""Hugging Face folder or run folder -> model on a mesh -> Hugging Face folder."""

import re
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int, PyTree, Shaped

from clp_jax.arguments import checked
from clp_jax.checkpoint.card import CARD, render_card
from clp_jax.checkpoint.hub import (
    GENERATION,
    UNPADDED,
    copy_model_files,
    load_tokenizer,
    model_files,
    read_config,
    read_generation,
    resolve,
)
from clp_jax.checkpoint.orbax import restore_params
from clp_jax.checkpoint.peft import read_lora
from clp_jax.checkpoint.results_card import add_results
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.checkpoint.tensors import (
    FLOAT_NAMES,
    FLOATS,
    LazyTensor,
    open_tensors,
    write_tensors,
)
from clp_jax.errors import UserError
from clp_jax.files import new_folder, public_name, write_json
from clp_jax.limits import FloatType, LocalPath, Name, PathOrName
from clp_jax.mesh import single_device_mesh, to_host
from clp_jax.models import (
    HEAD,
    Decoder,
    DecoderConfig,
    Weight,
    abstract_model,
    abstract_parameters,
    decoder_class,
    parameter_path,
    parameter_shardings,
    read_decoder_config,
    weight_table,
)
from clp_jax.models.lora import merge_adapters
from clp_jax.results import Results
from clp_jax.tokenizer import Tokenizer

ROWS_COMPARED = 4096


def model_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer of a model, run folder or hub id.

    Raises:
        UserError: there is none, or the model's embedding lacks a row for one of its ids.
    """
    folder = model_files(name)
    tokenizer = load_tokenizer(folder)
    tokenizer.check_rows(read_decoder_config(read_config(folder)).vocab_size, f"The model {name}")
    return tokenizer


@checked
def load_model(
    name: PathOrName,
    *,
    mesh: Mesh | None = None,
    dtype: FloatType | None = None,
    compute_dtype: FloatType = jnp.float32,
    revision: Name | None = None,
) -> Decoder:
    """Load a model directly onto a mesh.

    Args:
        name: Hugging Face folder, hub id, or run folder (its newest checkpoint; adapters are
            merged).
        mesh: where the parameters go, by the rules of `clp_jax.mesh`; one device by default.
        dtype: of the parameters; None keeps each tensor's own.
        compute_dtype: of the computation.
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: the folder, its configuration or its tensors are not valid; all faults of the
            tensors are reported together.
    """
    mesh = mesh or single_device_mesh()
    run = is_run_folder(name)
    folder = model_files(name, revision) if run else resolve(name, revision)
    config = read_decoder_config(read_config(folder), folder / "config.json")
    if run:
        lora = read_lora(folder)
        if lora is None:
            params = _restore(name, config, mesh, dtype)
        else:
            adapted = _restore(name, replace(config, lora=lora), mesh, None)
            params = merge_adapters(adapted, lora)
            params = jax.tree.map(lambda x: x.astype(dtype or x.dtype), params)
        _check_finite(name, params)
        return nnx.merge(nnx.graphdef(abstract_model(config, dtype=compute_dtype)), params)
    return build_model(
        config, checkpoint_tensors(folder, config), mesh, dtype=dtype, compute_dtype=compute_dtype
    )


def open_model(name: PathOrName) -> tuple[DecoderConfig, dict[str, LazyTensor]]:
    """A model's configuration, and its tensors under the names of the weight table.

    Those of a Hugging Face folder are read on demand, those of a run folder loaded at once.

    Args:
        name: Hugging Face folder, hub id, or run folder (its newest checkpoint).

    Raises:
        UserError: see `load_model`.
    """
    if is_run_folder(name):
        model = load_model(name)
        return model.config, model_tensors(model)
    folder = resolve(name)
    config = read_decoder_config(read_config(folder), folder / "config.json")
    return config, checkpoint_tensors(folder, config)


def load_adapters(run: PathOrName, *, mesh: Mesh | None = None) -> Decoder:
    """The model of a run with its adapters, which `load_model` would merge.

    Raises:
        UserError: the run trains no adapters, or its newest checkpoint is not valid.
    """
    folder = model_files(run)
    lora = read_lora(folder) if is_run_folder(run) else None
    if lora is None:
        raise UserError(f"{run} has no adapters: name a training run whose lora.r is not 0.")
    config = read_decoder_config(read_config(folder), folder / "config.json")
    config = replace(config, lora=lora)
    params = _restore(run, config, mesh or single_device_mesh(), None)
    _check_finite(run, params)
    return nnx.merge(nnx.graphdef(abstract_model(config)), params)


def _restore(
    run: str | Path, config: DecoderConfig, mesh: Mesh, dtype: DTypeLike | None
) -> PyTree[Array]:
    return restore_params(run, abstract_parameters(abstract_model(config), mesh), dtype=dtype)


def load_parts(
    name: PathOrName,
    parts: Collection[str],
    *,
    mesh: Mesh,
    dtype: FloatType | None = None,
    revision: Name | None = None,
) -> dict[str, PyTree[Array]]:
    """Some parts of a model's parameters, such as ``token_embedding``.

    The arguments and errors are those of `load_model`; a part that the model lacks is left out. Of
    a run folder everything is read first.
    """
    if is_run_folder(name):
        model = load_model(name, mesh=mesh, dtype=dtype, revision=revision)
        whole = nnx.to_pure_dict(nnx.state(model))
        return {part: tree for part, tree in whole.items() if part in parts}
    folder = resolve(name, revision)
    config = read_decoder_config(read_config(folder), folder / "config.json")
    tensors = checkpoint_tensors(folder, config)
    shardings = nnx.to_pure_dict(parameter_shardings(abstract_model(config), mesh))
    chosen = {part: tree for part, tree in shardings.items() if part in parts}
    return _load_parameters(config, tensors, chosen, dtype)


def _check_finite(run: str | Path, params: PyTree[Array]) -> None:
    """Make sure that all values are finite, as `LazyTensor` does for other checkpoints."""
    for path, finite in jax.tree_util.tree_leaves_with_path(_all_finite(params)):
        if not finite:
            raise UserError(
                f"{run}: {parameter_path(path)} holds values that are NaN, infinite or too large "
                "for the requested type: use an earlier checkpoint, or float32."
            )


@jax.jit
def _all_finite(params: PyTree[Array]) -> PyTree[Bool[Array, ""]]:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), params)


def build_model(
    config: DecoderConfig,
    tensors: Mapping[str, LazyTensor],
    mesh: Mesh,
    *,
    dtype: DTypeLike | None = None,
    compute_dtype: DTypeLike = jnp.float32,
) -> Decoder:
    """A model with the given tensors, which are read one by one onto a mesh.

    Args:
        config: the model's configuration.
        tensors: all its tensors, under the names of the weight table.
        mesh: where the parameters go.
        dtype: of the parameters; None keeps each tensor's own.
        compute_dtype: of the computation.
    """
    model = abstract_model(config, dtype=compute_dtype)
    params = _load_parameters(config, tensors, parameter_shardings(model, mesh), dtype)
    return nnx.merge(nnx.graphdef(model), params)


def _load_parameters(
    config: DecoderConfig,
    tensors: Mapping[str, LazyTensor],
    shardings: PyTree[NamedSharding],
    dtype: DTypeLike | None,
) -> PyTree[Array]:
    """The parameters that have a sharding, each read to its devices."""
    table = {weight.path: weight for weight in weight_table(config)}
    return jax.tree_util.tree_map_with_path(
        lambda path, sharding: _load_parameter(
            table[parameter_path(path)], tensors, config, sharding, dtype
        ),
        shardings,
    )


def checkpoint_tensors(folder: Path, config: DecoderConfig) -> dict[str, LazyTensor]:
    """The tensors of a Hugging Face folder under the names of the weight table.

    Published checkpoints come with and without the architecture's prefix before the names, with
    buffers that are not weights, and with a copy of the tied head: all are accepted.

    Raises:
        UserError: tensors are missing, unknown or of another shape; all are reported together.
    """
    shapes = {
        name: weight.checkpoint_shape(config.sizes)
        for weight in weight_table(config)
        for name in weight.names(config.num_layers)
    }
    module = decoder_class(config)
    found: dict[str, LazyTensor] = {}
    names: dict[str, str] = {}
    faults = []
    for name, tensor in open_tensors(folder).items():
        whole = name.startswith(module.prefix) or name == HEAD.name
        full = name if whole else module.prefix + name
        if full in shapes:
            found[full] = tensor
            if full in names:
                faults.append(f"{names[full]} and {name} are the same tensor")
            names[full] = name
            if tensor.shape != shapes[full]:
                faults.append(f"{name} has the shape {tensor.shape}, not {shapes[full]}")
        elif full == HEAD.name:
            found[full] = tensor
        elif not re.fullmatch(module.ignored, full):
            faults.append(f"{name} is not part of this model")
        if full in found and tensor.dtype not in FLOATS:
            faults.append(f"{name} has the type {tensor.dtype}, not one of {FLOAT_NAMES}")
    faults += [f"{name} is missing" for name in shapes if name not in found]
    table_name = weight_table(config)[0].name
    copy = found.pop(HEAD.name, None) if config.tied else None
    if copy and not faults and not _equal(copy, found[table_name]):
        faults.append(
            f"{HEAD.name} differs from {table_name}, which config.json says it is tied to"
        )
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(f"{folder}: {'; '.join(faults[:5])}{more}.")
    return found


def _equal(a: LazyTensor, b: LazyTensor) -> bool:
    return a.shape == b.shape and all(
        np.array_equal(
            a.read_rows(start, start + ROWS_COMPARED), b.read_rows(start, start + ROWS_COMPARED)
        )
        for start in range(0, a.shape[0], ROWS_COMPARED)
    )


def _load_parameter(
    weight: Weight,
    tensors: Mapping[str, LazyTensor],
    config: DecoderConfig,
    sharding: NamedSharding,
    dtype: DTypeLike | None,
) -> Array:
    """Read one parameter to its devices; the host holds one tensor of the checkpoint at a time."""
    names = weight.names(config.num_layers)
    kind = jax.dtypes.canonicalize_dtype(tensors[names[0]].dtype if dtype is None else dtype)

    def read(name: str, sharding: NamedSharding) -> Array:
        tensor = weight.to_model(tensors[name].astype(kind).read(), config.sizes)
        return jax.make_array_from_callback(
            tensor.shape, sharding, lambda index: np.ascontiguousarray(tensor[index])
        )

    if not weight.stacked:
        return read(names[0], sharding)
    one_layer = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    shape = tuple(config.sizes[axis] for axis in weight.axes)
    stacked = jax.jit(partial(jnp.zeros, shape, kind), out_shardings=sharding)()
    for index, name in enumerate(names):
        stacked = _set_layer(stacked, read(name, one_layer), index)
    return stacked


@partial(jax.jit, donate_argnums=0)
def _set_layer(
    stacked: Shaped[Array, "layers ..."], layer: Shaped[Array, "..."], index: int | Int[Array, ""]
) -> Shaped[Array, "layers ..."]:
    return jax.lax.dynamic_update_index_in_dim(stacked, layer, index, 0)


def model_tensors(model: Decoder) -> dict[str, LazyTensor]:
    """The model's parameters under Hugging Face's names and in its layout, read on demand."""
    params = {
        parameter_path(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model))
    }
    sizes = model.config.sizes
    tensors = {}
    for weight in weight_table(model.config):
        for layer, name in enumerate(weight.names(model.config.num_layers)):
            tensors[name] = LazyTensor(
                weight.checkpoint_shape(sizes),
                params[weight.path].dtype,
                partial(_read_parameter, weight, params[weight.path], layer, sizes),
                name,
            )
    return tensors


def _read_parameter(
    weight: Weight, parameter: Array, layer: int, sizes: Mapping[str, int], rows: slice
) -> np.ndarray:
    array = to_host(parameter[layer] if weight.stacked else parameter)
    return weight.to_checkpoint(array, sizes)[rows]


@checked
def save_model(
    model: Decoder,
    out: LocalPath,
    *,
    origin: PathOrName,
    dtype: FloatType | None = None,
    results: Results | None = None,
) -> None:
    """Write a model as a Hugging Face folder that `transformers` loads.

    Rows without a token, which a transfer added to the tables, are left out.

    Args:
        model: the model; its parameters may be spread over devices and hosts.
        out: new folder: weights (several files above 5 GB), configuration, tokenizer, card.
        origin: folder, run folder or hub id that provides configuration, tokenizer and card.
        dtype: floating-point type of the weights; None keeps the parameters' own.
        results: what was measured, for the card.

    Raises:
        UserError: ``out`` exists and is not empty.
    """
    origin = model_files(origin)
    config = read_config(origin)
    real = config.pop(UNPADDED, None)
    if real is not None:
        config["vocab_size"] = real
    tensors = {
        name: tensor.astype(None if dtype is None else np.dtype(dtype))
        for name, tensor in _without_padding(model_tensors(model), model.config, real).items()
    }
    first = jax.process_index() == 0
    with new_folder(out) if first else nullcontext(Path(out)) as folder:
        if first:
            copy_model_files(origin, folder)
            config.pop("torch_dtype", None)
            kind = tensors[weight_table(model.config)[0].name].dtype
            write_json(folder / "config.json", config | {"dtype": str(kind)})
            generation = read_generation(folder)
            if real is not None and generation:
                _forget_padding(folder / GENERATION, generation, real)
            write_card(folder, public_name(origin))
            if results is not None:
                add_results(folder, results)
        write_tensors(folder, tensors, writer=first)


def write_card(folder: Path, name: str) -> None:
    """Write a card that names the model's origin into a folder, unless it has one."""
    if not (folder / CARD).exists():
        text = f"A causal language model, written by clp_jax from `{name}`, whose licence applies."
        (folder / CARD).write_text(render_card(Path(name).name, {}, f"{text}\n"), "utf-8")


def _without_padding(
    tensors: Mapping[str, LazyTensor], config: DecoderConfig, real: int | None
) -> dict[str, LazyTensor]:
    """The tensors; those with one row per token are cut to ``real`` rows, if given."""
    cut = dict(tensors)
    for weight in weight_table(config):
        if real is not None and weight.axes[0] == "vocab":
            cut[weight.name] = tensors[weight.name].head(real)
    return cut


def _forget_padding(file: Path, settings: dict[str, Any], real: int) -> None:
    """Remove the ids of dropped rows from those that ``generate`` must not produce."""
    kept = [id for id in settings.pop("suppress_tokens", None) or [] if id < real]
    write_json(file, settings | ({"suppress_tokens": kept} if kept else {}))
