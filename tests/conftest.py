"""Eight fake CPU devices in every test run, and the real data where it is at hand."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real text, tokenizers and tasks, which the project does not carry."""
    folder = Path(os.environ.get("CLP_JAX_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data not at hand: set CLP_JAX_TEST_DATA to the folder that holds it")
    return folder
