"""The rows of the embeddings: their origins and norms, which are trained, which only move.

Polishing moves the rows of the tokens that the text has. Their change is fitted as a linear
function of the row before, by ridge regression, each row weighted by the square root of its count:
a strong ridge moves all rows alike. The new rows that the text lacks change by that function, too.

If the next token is predicted, the softmax has pushed these rows already, all in nearly the same
direction, which makes their tokens unlikely: rightly so. They keep that, and of the fitted change
they get what is perpendicular to it (docs/lab.md has what it costs otherwise).
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from clp_jax.checkpoint.hub import ORIGINS
from clp_jax.errors import UserError
from clp_jax.files import regular_file
from clp_jax.mesh import single_device_mesh, to_host
from clp_jax.train.optimizer import GROUPS
from clp_jax.transfer.interface import Problem
from clp_jax.transfer.methods.linear import fit_ridge

TABLES = ("token_embedding", "head")
"""The parts of a model that have a row for each token."""
COPIED = ("copied", "role")
"""The origins of the rows that a transfer takes from its source as they are."""
COUNT_EXPONENT = 0.5
_HEADERS = 1 << 20
"""Bytes allowed for the arrays' headers, in addition to eight per row."""


def read_origins(model_folder: Path, rows: int) -> dict[str, Int[np.ndarray, " ids"]]:
    """The ids of the rows by origin; without a transfer the only origin is ``all``.

    Args:
        model_folder: The model's folder, where a transfer writes ``transfer_origins.npz``.
        rows: Rows of the embedding.

    Raises:
        UserError: the file does not give the origin of the rows.
    """
    file = model_folder / ORIGINS
    if not file.exists():
        return {"all": np.arange(rows)}
    try:
        with zipfile.ZipFile(regular_file(file)) as members:
            size = sum(member.file_size for member in members.infolist())
        origins = dict(np.load(file)) if size <= 8 * rows + _HEADERS else {}
        ids = np.concatenate([part for part in origins.values() if len(part)])
        fits = ids.dtype.kind in "iu" and ids.min() >= 0
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error):
        fits = False
    if not fits:
        raise UserError(f"{file} does not give the origins of {rows} rows: remove it.")
    kept = {origin: ids[ids < rows] for origin, ids in origins.items()}  # An export drops padding.
    return {origin: ids for origin, ids in kept.items() if len(ids)}


def rows_from(
    origins: Mapping[str, Int[np.ndarray, " ids"]], rows: int, *names: str
) -> Bool[np.ndarray, " rows"]:
    """The rows that have one of the named origins.

    Args:
        origins: ids by origin, see `read_origins`.
        rows: rows of the embedding.
        *names: the origins.
    """
    found = np.zeros(rows, bool)
    for name in names:
        found[origins.get(name, [])] = True
    return found


def mean_norms(
    embedding: Float[Array, "vocab embed"], origins: Mapping[str, Int[np.ndarray, " _"]]
) -> dict[str, float]:
    """Mean Euclidean norm of the rows of each origin, as ``norm_ORIGIN``.

    Copied rows that shrink while new ones grow, or the reverse, have not settled yet. Every process
    must call this function.
    """
    norms = to_host(_row_norms(embedding))
    return {f"norm_{origin}": float(norms[ids].mean()) for origin, ids in origins.items()}


@jax.jit
def _row_norms(embedding: Float[Array, "vocab embed"]) -> Float[Array, " vocab"]:
    return jnp.linalg.norm(embedding.astype(jnp.float32), axis=1)


def of_rows(rows: Bool[np.ndarray, " vocab"], new: PyTree[Array], old: PyTree[Array]) -> Any:
    """The new values of some rows of the embeddings, and the old ones of all other rows.

    Parts of the model other than embeddings get the new values; a norm of the embeddings, which all
    rows share, gets the old ones.
    """

    def chosen(path: tuple[Any, ...], new: Array, old: Array) -> Array:
        if GROUPS[path[0].key] != "embeddings":
            return new
        return jnp.where(rows[:, None], new, old) if path[0].key in TABLES else old

    return jax.tree_util.tree_map_with_path(chosen, new, old)


def move_untouched(
    params: Mapping[str, PyTree[Array]],
    before: Mapping[str, Float[np.ndarray, "vocab embed"]],
    counts: Int[np.ndarray, " vocab"],
    new: Bool[np.ndarray, " vocab"],
    *,
    predicts: bool,
) -> tuple[dict[str, PyTree[Array]], dict[str, float]]:
    """Move the new rows that the text lacks as training has moved those that it has.

    Args:
        params: the parameters after training; every process must call this function.
        before: the tables before it.
        counts: how often the text has each token.
        new: the rows to move or to learn from.
        predicts: whether the next token was predicted.

    Returns:
        The parameters, and the number of new rows that are ``touched`` and ``untouched``, with the
        squared error of held-out changes relative to their mean's, ``held_out_error/TABLE``.
    """
    touched, untouched = np.flatnonzero(new & (counts > 0)), np.flatnonzero(new & (counts == 0))
    facts = {"touched": float(len(touched)), "untouched": float(len(untouched))}
    if not (len(touched) and len(untouched)):
        return dict(params), facts
    moved = dict(params)
    for part, old in before.items():
        table = params[part]["embedding"]
        rows = np.array(to_host(table))
        change, error = predict_change(
            old, rows, touched, untouched, counts[touched], mesh=single_device_mesh()
        )
        push = (rows - old)[untouched].mean(axis=0)
        rows[untouched] += perpendicular(change, push) if predicts else change
        placed = jax.make_array_from_callback(rows.shape, table.sharding, rows.__getitem__)
        moved[part] = {"embedding": placed}
        facts |= {f"held_out_error/{part}": error} if error is not None else {}
    return moved, facts


def perpendicular(
    changes: Float[np.ndarray, "row embed"], push: Float[np.ndarray, " embed"]
) -> Float[np.ndarray, "row embed"]:
    """The changes without their part in the direction of ``push``."""
    direction = push / max(np.linalg.norm(push), np.finfo(push.dtype).tiny)
    return changes - np.outer(changes @ direction, direction)


def predict_change(
    before: Float[np.ndarray, "vocab embed"],
    after: Float[np.ndarray, "vocab embed"],
    touched: Int[np.ndarray, " known"],
    untouched: Int[np.ndarray, " asked"],
    counts: Int[np.ndarray, " known"],
    *,
    mesh: Mesh,
) -> tuple[Float[np.ndarray, "asked embed"], float | None]:
    """The change of some rows as a linear function of the row, fitted to that of others.

    Args:
        before: all rows before training.
        after: all rows after it.
        touched: the rows to fit to.
        untouched: the rows to predict.
        counts: how often the text has each of the former.
        mesh: devices to compute on.

    Returns:
        The changes, and the squared error of held-out ones relative to their mean's; None if there
        are too few rows to hold any out, or if all have changed alike.
    """
    changes = after[touched] - before[touched]
    rounding = 8 * np.finfo(before.dtype).eps * np.abs(before).max()
    if np.ptp(changes, axis=0).max() <= rounding:
        return np.repeat(changes.mean(axis=0, keepdims=True), len(untouched), axis=0), None
    problem = Problem(
        queries=before[untouched],
        anchors=before[touched],
        rows=changes,
        mean=changes.mean(axis=0),
        std=changes.std(axis=0),
        mesh=mesh,
        seed=0,
        frequencies=counts.astype(np.float32),
    )
    fitted = fit_ridge(problem, None, COUNT_EXPONENT)
    return fitted.predict(problem).rows, fitted.facts.get("held_out_error")
