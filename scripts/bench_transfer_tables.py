"""The random tables of scripts/bench_transfer.py, on disk."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from clp_jax.checkpoint.tensors import LazyTensor, open_tensors, write_tensors
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer.anchors import TableInputs
from clp_jax.transfer.interface import Problem
from clp_jax.transfer.table import Layout

FIELDS = "queries", "anchors", "rows", "mean", "std"


class Setting(NamedTuple):
    """Numbers of tokens that both vocabularies have and that the source lacks, and tables."""

    shared: int
    missing: int
    helper_dim: int
    source_rows: int
    source_dim: int


SETTINGS = {
    "gpt2-xl": Setting(11_089, 38_911, 768, 50_257, 1600),
    "bloom-7b1": Setting(24_000, 26_257, 1600, 250_880, 4096),
    "tiny": Setting(1000, 3000, 64, 5000, 128),
}


def random_table(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Rows with a common mean, as those of large models have."""
    table = rng.standard_normal((rows, dim), np.float32)
    table += rng.standard_normal(dim, np.float32)
    return table


def layout_of(size: Setting) -> Layout:
    """Tokens that both have and tokens that the source lacks, in a random order."""
    rng = np.random.default_rng(1)
    shared, missing = np.split(rng.permutation(size.shared + size.missing), [size.shared])
    return Layout(
        rows=size.shared + size.missing,
        copied_source=rng.choice(size.source_rows, size.shared, replace=False),
        copied=shared,
        anchors=size.shared,
        anchor_helper=shared,
        roles=shared[:0],
        missing=missing,
        missing_helper=missing,
        padding=shared[:0],
        keeps=False,
    )


def open_inputs(size: Setting, folder: Path) -> TableInputs:
    source, helper = (open_tensors(folder / name)["table"] for name in ("source", "helper"))
    return TableInputs(source, helper, layout_of(size), single_device_mesh(), seed=0)


def write_inputs(size: Setting, folder: Path) -> None:
    """Two checkpoints, and the fields of the problem that they make."""
    rng = np.random.default_rng(0)
    for name, rows, dim in (
        ("source", size.source_rows, size.source_dim),
        ("helper", size.shared + size.missing, size.helper_dim),
    ):
        (folder / name).mkdir()
        write_tensors(folder / name, {"table": LazyTensor.of(random_table(rng, rows, dim))})
    problem = open_inputs(size, folder).helper_rows().problem
    for name in FIELDS:
        np.save(folder / f"{name}.npy", getattr(problem, name))


def read_problem(folder: Path) -> Problem:
    tables = (np.load(folder / f"{name}.npy") for name in FIELDS)
    return Problem(*tables, mesh=single_device_mesh(), seed=0)
