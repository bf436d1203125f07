"""The transfer stage: from two checkpoints to one for the target language."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from pydantic import Field

from clp_jax.arguments import checked
from clp_jax.checkpoint.card import CARD
from clp_jax.checkpoint.hub import (
    GENERATION,
    MANIFEST,
    ORIGINS,
    copy_tokenizer,
    read_generation,
)
from clp_jax.checkpoint.tensors import LazyTensor, parse_dtype, write_tensors
from clp_jax.errors import UserError
from clp_jax.files import new_folder, scratch_folder, write_json
from clp_jax.limits import LocalPath, PathOrName
from clp_jax.mesh import make_mesh
from clp_jax.transfer.checks import AUTO, check_transfer
from clp_jax.transfer.config import TransferConfig, TransferOptions
from clp_jax.transfer.helper import open_helper
from clp_jax.transfer.models import open_source, with_target_tokens
from clp_jax.transfer.pair import TransferPair
from clp_jax.transfer.reading import read_with_source, read_with_target
from clp_jax.transfer.report import describe_transfer, model_card, write_trace
from clp_jax.transfer.selection import Choice, rank_by_overlap, rank_by_text
from clp_jax.transfer.table import NewTable
from clp_jax.transfer.text import DrawnText, draw_text


@checked
def transfer_model(
    source: PathOrName,
    helper: PathOrName | Annotated[Sequence[PathOrName], Field(min_length=1)],
    out: LocalPath,
    *,
    mesh: Mesh | None = None,
    **options: Unpack[TransferOptions],
) -> dict[str, Any]:
    """Give ``source`` the vocabulary of ``helper``, or another, and write a Hugging Face folder.

    The embedding table and an untied head are recomputed in float32; the head uses the similarities
    in the helper's head if that is untied too. All other tensors are the source's. In addition to
    the weights, ``out`` gets the source's configuration with the token ids of the new tokenizer,
    that tokenizer, a model card, the manifest ``transfer.json``, and ``transfer_origins.npz``, the
    ids of the embedding's rows by origin. The same inputs and seed give the same bytes.

    Args:
        source: folder or hub id of a model of the source language, in an architecture of
            `clp_jax.models`.
        helper: folder or hub id of a model of any architecture that knows the target language.
            Given several, the method ``auto`` takes the best.
        out: the folder to write.
        mesh: devices to compute on; by default all of them.
        **options: the keys of `clp_jax.transfer.config.TransferConfig`, which documents them.

    Returns:
        The manifest: the choice and its alternatives, rows by origin, norms, hashes of the inputs,
        versions.

    Raises:
        UserError: an input is missing, damaged, not supported or inconsistent with the others, the
            options contradict each other, a new row is not finite, or ``out`` exists.
    """
    config = TransferConfig.from_dict(options, origin="transfer")
    helpers = [helper] if isinstance(helper, str | Path) else list(helper)
    check_transfer(source, helpers, out, config)
    dtype = None if config.dtype is None else parse_dtype(config.dtype)
    mesh = mesh or make_mesh()
    source_model = open_source(source)
    drawn = DrawnText()
    if config.data:
        drawn = draw_text(config.data, config.text_field, config.seed)
    with new_folder(out) as folder, scratch_folder() as scratch:
        opened = [open_helper(name, config.tokenizer) for name in helpers]
        pairs = [
            TransferPair(source_model, helper, config, drawn.documents, scratch / str(i), mesh)
            for i, helper in enumerate(opened)
        ]
        measured, readings = config.method == AUTO or config.calibrate, {}
        if config.data and source_model.tokenizer.eos is not None:
            readings["source"] = read_with_source(pairs[0], measured=measured)
        choice = choose(pairs, config)
        tables = choice.tables()
        if config.data:
            readings["new"] = read_with_target(choice, tables, measured=measured)
        tensors = {name: tensor.astype(dtype) for name, tensor in source_model.tensors.items()}
        for name, table in tables.items():
            check_finite(table, name, tensors[name].dtype, choice.pair)
            tensors[name] = LazyTensor.of(table.rows).astype(tensors[name].dtype)
        manifest = describe_transfer(
            choice, tables, drawn, readings, str(source), [str(name) for name in helpers], config
        )
        write_tensors(folder, tensors)
        write_configuration(folder, choice.pair, config.dtype)
        write_json(folder / MANIFEST, manifest)
        origins: dict[str, Any] = next(iter(tables.values())).ids_by_origin()
        np.savez_compressed(folder / ORIGINS, **origins)
        card = model_card(manifest, choice.pair.source, choice.pair.helper)
        (folder / CARD).write_text(card, "utf-8")
        if config.trace:
            write_trace(folder / "transfer_trace.jsonl", choice, tables)
    return manifest


def choose(pairs: Sequence[TransferPair], config: TransferConfig) -> Choice:
    """The recipe that the configuration names, or the best one for these models.

    Raises:
        UserError: an input of the named method is missing, the models share no token, or a score
            is not finite.
    """
    if config.method != AUTO:
        (pair,) = pairs
        pair.check(config.method)
        given: dict[str, Any] = {
            "source_weight": config.source_weight,
            "match_spread": config.match_spread,
            "spread_shrinkage": config.spread_shrinkage,
        }
        recipe = replace(
            pair.defaults(config.method),
            by_reliability=config.by_reliability,
            calibrate=config.calibrate,
            no_fallback=config.no_fallback,
            **{key: value for key, value in given.items() if value is not None},
        )
        return Choice(pair, recipe)
    ranking = rank_by_text(pairs, config.rank_steps) if config.data else rank_by_overlap(pairs)
    for score in ranking:
        if not np.isfinite(score.value):
            raise UserError(
                f"{score.recipe.method} with {score.pair.helper.name} has a score that is not "
                "finite: check the rows of that helper and of the source for huge values."
            )
    return Choice(ranking[0].pair, ranking[0].recipe, ranking)


def check_finite(table: NewTable, name: str, dtype: np.dtype, pair: TransferPair) -> None:
    """Check that every value of a new table is finite in ``dtype``.

    Raises:
        UserError: a value is not finite; the message names the token.
    """
    largest = np.maximum(table.rows.max(axis=1), -table.rows.min(axis=1))
    broken = np.flatnonzero(~(largest <= float(jnp.finfo(dtype).max)))
    broken = np.setdiff1d(broken, table.origins["padding"])
    if len(broken):
        token = pair.tokenizer.token(int(broken[0]))
        raise UserError(
            f"{name}: {len(broken)} new rows are not finite in {dtype}, the first for the token "
            f"{token!r} (id {broken[0]}): check the rows of {pair.helper.name} and of the source, "
            "or choose another dtype."
        )


def write_configuration(folder: Path, pair: TransferPair, dtype: str | None) -> None:
    """Write the new model's configurations and tokenizer."""
    pairs = with_target_tokens(read_generation(pair.source.folder), pair.tokenizer)
    if len(pair.layout.padding):
        pairs["suppress_tokens"] = pair.layout.padding.tolist()
    write_json(folder / "config.json", pair.config(dtype))
    write_json(folder / GENERATION, pairs)
    copy_tokenizer(pair.tokenizer_folder, folder)
