"""Conversion of a model between formats: Hugging Face folder <-> run folder."""

from collections.abc import Sequence
from typing import Literal

from flax import nnx
from jax.sharding import Mesh

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.checkpoint.hub import copy_model_files, model_files
from clp_jax.checkpoint.orbax import save_params
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.errors import UserError
from clp_jax.files import new_folder, new_path
from clp_jax.limits import FloatType, LocalPath, PathOrName
from clp_jax.results import read_results


@checked
def convert_checkpoint(
    source: PathOrName,
    out: LocalPath,
    to: Literal["hf", "orbax"],
    *,
    dtype: FloatType | None = None,
    results: Sequence[LocalPath] = (),
    mesh: Mesh | None = None,
) -> None:
    """Write the model in ``source`` in another format.

    Args:
        source: Hugging Face folder, hub id or run folder (its newest checkpoint).
        out: new folder.
        to: ``hf`` for a folder that `transformers` loads, ``orbax`` for one with the
            parameters as in a run folder, without a training state.
        dtype: floating-point type of the weights; None keeps what they have.
        results: files of results for the card of ``hf``, see `clp_jax.results.read_results`.
        mesh: where the parameters are in the meantime; one device by default.

    Raises:
        UserError: ``source`` is not a model, or ``out`` exists.
    """
    new_path(out)
    if results and to != "hf":
        raise UserError("results are for a model card: write the model with --to hf.")
    measured = read_results(results) if results else None
    model = load_model(source, mesh=mesh, dtype=dtype)
    if to == "hf":
        save_model(model, out, origin=source, results=measured)
    else:
        with new_folder(out) as folder:
            (folder / MODEL).mkdir()
            copy_model_files(model_files(source), folder / MODEL)
            save_params(folder, nnx.to_pure_dict(nnx.state(model)))
