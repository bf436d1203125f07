"""The transfer stage: two checkpoints in, one checkpoint of the target language out."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clp_jax.checkpoint.hub import copy_tokenizer
from clp_jax.checkpoint.tensors import LazyTensor, parse_dtype, write_tensors
from clp_jax.errors import UserError
from clp_jax.files import new_folder, read_json, write_json
from clp_jax.mesh import make_mesh
from clp_jax.transfer.inputs import Checkpoint, open_helper, open_source
from clp_jax.transfer.manifest import describe_transfer, model_card
from clp_jax.transfer.table import NewTable, new_table
from clp_jax.transfer.target import target_config, with_target_tokens
from clp_jax.vocabulary import match_vocabularies, read_vocabulary

METHODS = ("clp",)


def transfer_model(
    source: str | Path,
    helper: str | Path,
    out: str | Path,
    *,
    method: str = "clp",
    strict: bool = False,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Give ``source`` the vocabulary of ``helper`` and write the result as a Hugging Face folder.

    The embedding table, and the head where it is not tied to it, are computed anew, in float32; an
    untied head by the similarities in the helper's own head if that is untied too. Every other
    tensor is the source's. Beside the weights, ``out`` gets the source's configuration with the
    token ids of the helper's tokenizer, that tokenizer, a model card and the manifest
    ``transfer.json``.

    Args:
        source: folder or hub id of a GPT-2 or BLOOM that speaks the source language.
        helper: folder or hub id of a decoder that speaks the target language.
        out: the folder to write.
        method: how missing rows are computed; ``clp`` is Ostendorff & Rehm's formula.
        strict: keep the formula for rows where it is ill-conditioned; they otherwise get the mean
            of their nearest shared tokens (:mod:`clp_jax.transfer.topk`).
        dtype: type of the weights written; by default each tensor keeps the source's.
        mesh: devices to compute on; by default all of them.

    Returns:
        The manifest: rows by origin, conditions, norms, hashes of the inputs, versions.

    Raises:
        UserError: an input is missing or damaged, is not supported or does not fit the other one,
            no token is shared, a new row is not finite, or ``out`` exists.
    """
    if method not in METHODS:
        raise UserError(f"Method {method!r} is not one of {', '.join(METHODS)}.")
    chosen_dtype = None if dtype is None else parse_dtype(dtype)
    source_model, helper_model = open_source(source), open_helper(helper)
    vocabulary = match_vocabularies(
        read_vocabulary(source_model.tokenizer), read_vocabulary(helper_model.tokenizer)
    )
    if not vocabulary.anchors.any():
        raise UserError(
            f"The tokenizers of {source} and {helper} have no token in common, "
            "but CLP-Transfer builds every new row from the rows of shared tokens."
        )
    # A tied helper's one table maps the head too.
    helper_tables = dict(
        zip(source_model.tables, [helper_model.tables[0], helper_model.tables[-1]], strict=False)
    )
    with new_folder(out) as folder:
        tables = {
            name: new_table(
                source_model.tensors[name],
                helper_model.tensors[helper_name],
                vocabulary,
                strict=strict,
                mesh=mesh or make_mesh(),
            )
            for name, helper_name in helper_tables.items()
        }
        tensors = {
            name: tensor.astype(chosen_dtype) for name, tensor in source_model.tensors.items()
        }
        for name, table in tables.items():
            check_finite(table, name, tensors[name].dtype, helper_model)
            tensors[name] = LazyTensor.of(table.rows).astype(tensors[name].dtype)
        arguments = {
            "source": str(source),
            "helper": str(helper),
            "method": method,
            "strict": strict,
            "dtype": dtype,
        }
        manifest = describe_transfer(
            source_model, helper_model, vocabulary, tables, helper_tables, arguments
        )
        write_tensors(folder, tensors)
        write_configuration(folder, source_model, helper_model, vocabulary.target_rows, dtype)
        write_json(folder / "transfer.json", manifest)
        (folder / "README.md").write_text(model_card(manifest), "utf-8")
    return manifest


def check_finite(table: NewTable, name: str, dtype: np.dtype, helper: Checkpoint) -> None:
    """Make sure that every value of a new table is a number of ``dtype``.

    Raises:
        UserError: one is not; names the token.
    """
    largest = np.maximum(table.rows.max(axis=1), -table.rows.min(axis=1))
    broken = np.flatnonzero(~(largest <= float(jnp.finfo(dtype).max)))
    broken = np.setdiff1d(broken, table.origins["padding"])
    if len(broken):
        token = helper.tokenizer.convert_ids_to_tokens(int(broken[0]))
        raise UserError(
            f"{name}: {len(broken)} new rows are not finite in {dtype}, the first for the token "
            f"{token!r} (id {broken[0]}): look for broken rows in {helper.name} and the source."
        )


def write_configuration(
    folder: Path, source: Checkpoint, helper: Checkpoint, rows: int, dtype: str | None
) -> None:
    """Write the configurations of a model with ``rows`` ids, and the target tokenizer."""
    generation = source.folder / "generation_config.json"
    settings = read_json(generation) if generation.exists() else {}
    write_json(folder / "config.json", target_config(source.config, helper.tokenizer, rows, dtype))
    write_json(folder / generation.name, with_target_tokens(settings, helper.tokenizer))
    copy_tokenizer(helper.folder, folder)
