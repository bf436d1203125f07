"""What a new table takes beyond its inputs, held for every method with all its options."""

from pathlib import Path

import numpy as np
import pytest

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.mesh import single_device_mesh
from clp_jax.transfer import blockwise as engine
from clp_jax.transfer import blockwise as rows
from clp_jax.transfer.anchors import TableInputs
from clp_jax.transfer.compose import Predictions, new_table
from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.table import Layout

ROWS, DIM, HELPER_DIM = 1024, 32_768, 16
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
BY_HELPER = [name for name, entry in METHODS.items() if entry.basis in ("nothing", "helper_rows")]


@pytest.fixture(scope="module")
def inputs():
    """Half of the rows are shared."""
    rng, ids, none = np.random.default_rng(0), np.arange(ROWS), np.arange(0)
    shared, missing = ids[: ROWS // 2], ids[ROWS // 2 :]
    layout = Layout(
        rows=ROWS, copied_source=shared, copied=shared, anchors=len(shared), anchor_helper=shared,
        roles=none, missing=missing, missing_helper=missing, padding=none, keeps=False,
    )  # fmt: skip
    shapes = (len(shared), DIM), (ROWS, HELPER_DIM)
    tables = (rng.standard_normal(shape, np.float32) for shape in shapes)
    inputs = TableInputs(*map(LazyTensor.of, tables), layout, single_device_mesh(), seed=0)
    _ = inputs.source, inputs.helper
    return inputs


def peak():
    return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(not CLEAR.exists(), reason="the peak is what Linux says of the process")
@pytest.mark.parametrize("method", BY_HELPER)
def test_a_new_table_takes_little_more_than_itself(inputs, method, monkeypatch):
    # Blocks are as small a part of this table as they are of a large model's.
    monkeypatch.setattr(rows, "PLACED_ROWS", 16)
    monkeypatch.setattr(engine, "BLOCK_ROWS", 8)
    entry = METHODS[method]
    basis = getattr(inputs, entry.basis)()

    def compute():
        predictions = Predictions(entry.method, basis, inputs.layout)
        return new_table(predictions, inputs.source, source_weight=0.25, match_spread=True)

    compute()  # compiles
    CLEAR.write_text("5")
    before = peak()
    size = compute().rows.nbytes
    assert peak() - before < 1.3 * size
