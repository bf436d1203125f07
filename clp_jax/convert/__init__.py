"""A model in another format: Hugging Face folder <-> run folder -> PEFT adapter, GGUF file."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_adapters, load_model, model_tensors, save_model
from clp_jax.checkpoint.hub import copy_model_files, model_files
from clp_jax.checkpoint.orbax import save_params
from clp_jax.checkpoint.peft import ADAPTER
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.checkpoint.tensors import write_tensors
from clp_jax.convert.gguf import GgufReport, write_gguf
from clp_jax.data.io.readers import read_documents
from clp_jax.errors import UserError
from clp_jax.files import new_folder, new_path, read_json, write_json
from clp_jax.limits import FloatType, Inputs, LocalPath, Name, PathOrName
from clp_jax.models import HEAD, Decoder, weight_table
from clp_jax.models.lora import PREFIX
from clp_jax.results import read_results


@checked
def convert_checkpoint(
    source: PathOrName,
    out: LocalPath,
    to: Literal["hf", "orbax", "peft", "gguf"],
    *,
    dtype: FloatType | None = None,
    results: Sequence[LocalPath] = (),
    data: Inputs | None = None,
    text_field: Name = "text",
    mesh: Mesh | None = None,
) -> GgufReport | None:
    """Write the model in ``source`` in another format.

    Args:
        source: Hugging Face folder, hub id or run folder (its newest checkpoint).
        out: new folder; for ``gguf``, new file.
        to: ``hf`` for a folder that `transformers` loads, ``orbax`` for one with the
            parameters as in a run folder, without a training state, ``peft`` for the adapters of
            a run alone, which PEFT loads; the others merge them. ``gguf`` for one file that
            llama.cpp and Ollama run.
        dtype: floating-point type of the weights; None keeps what they have.
        results: files of results for the card of ``hf``, see `clp_jax.results.read_results`.
        data: text for ``gguf``, files or hub data sets as for
            `clp_jax.data.io.readers.read_documents`. On it the nearest pre-tokenizer of llama.cpp
            is found if none splits as the tokenizer does, and the share of lines with other ids.
        text_field: field of a record that holds the text.
        mesh: where the parameters are in the meantime; one device by default.

    Returns:
        Of ``gguf``, how llama.cpp encodes.

    Raises:
        UserError: ``source`` is not a model or has no adapters; ``out`` exists; or llama.cpp cannot
            run the model.
    """
    new_path(out)
    if results and to != "hf":
        raise UserError("results are for a model card: write the model with --to hf.")
    if data is not None and to != "gguf":
        raise UserError("data are for llama.cpp's pre-tokenizer: write the model with --to gguf.")
    if to == "gguf":
        texts = None if data is None else read_documents(data, text_field)
        return write_gguf(source, out, dtype=dtype, texts=texts)
    measured = read_results(results) if results else None
    if to == "peft":
        save_adapters(load_adapters(source, mesh=mesh), out, origin=source, dtype=dtype)
        return None
    model = load_model(source, mesh=mesh, dtype=dtype)
    if to == "hf":
        save_model(model, out, origin=source, results=measured)
    else:
        with new_folder(out) as folder:
            (folder / MODEL).mkdir()
            copy_model_files(model_files(source), folder / MODEL)
            save_params(folder, nnx.to_pure_dict(nnx.state(model)))
    return None


def save_adapters(
    model: Decoder, out: LocalPath, *, origin: PathOrName, dtype: FloatType | None = None
) -> None:
    """Write a model's adapters, and what was trained in full with them, for PEFT.

    Args:
        model: the model with its adapters; its parameters may be spread over devices and hosts.
        out: new folder: ``adapter_config.json`` and ``adapter_model.safetensors``.
        origin: the run.
        dtype: floating-point type of the weights; None keeps the parameters' own.
    """
    settings = read_json(model_files(origin) / ADAPTER)
    tensors = model_tensors(model)
    if model.config.tied:
        tensors[HEAD.name] = tensors[weight_table(model.config)[0].name]
    whole = {*(settings["modules_to_save"] or ())}
    written = {
        name if name.startswith(PREFIX) else f"{PREFIX}{name}": tensor.astype(
            None if dtype is None else np.dtype(dtype)
        )
        for name, tensor in tensors.items()
        if name.startswith(PREFIX) or name.rpartition(".")[0] in whole
    }
    first = jax.process_index() == 0
    with new_folder(out) if first else nullcontext(Path(out)) as folder:
        if first:
            write_json(folder / ADAPTER, settings)
        write_tensors(folder, written, stem="adapter_model", max_shard_bytes=None, writer=first)
