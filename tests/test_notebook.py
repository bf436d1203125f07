"""The Colab notebook, run from top to bottom with tiny models and made-up text."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from clp_jax.checkpoint.hf import save_model
from clp_jax.checkpoint.hub import read_config
from clp_jax.files import read_json
from clp_jax.mesh import single_device_mesh
from clp_jax.models import initialize, read_decoder_config
from clp_jax.quickstart.inputs import made_up_text, write_new_model, write_text

NOTEBOOK = Path(__file__).resolve().parent.parent / "colab" / "clp_transfer.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def cell(notebook: nbformat.NotebookNode, tag: str) -> nbformat.NotebookNode:
    (found,) = (cell for cell in notebook.cells if tag in cell.metadata.get("tags", ()))
    return found


def set_up(notebook: nbformat.NotebookNode, **settings: object) -> None:
    """Give the settings of the notebook other values; each must be one that it has."""
    names: dict[str, object] = {}
    exec(cell(notebook, "settings").source, names)
    assert settings.keys() <= names.keys()
    cell(notebook, "settings").source += "".join(f"\n{k} = {v!r}" for k, v in settings.items())


def random_model(folder: Path, text: Path, width: int) -> str:
    """A GPT-2 folder with a tokenizer of ``text`` and random weights."""
    new = folder.with_name(f"new-{folder.name}")
    write_new_model(new, text, vocabulary=400, positions=64, layers=1, width=width, heads=2)
    config = read_decoder_config(read_config(new))
    model = initialize(config, seed=0, mesh=single_device_mesh())
    save_model(model, folder, origin=new)
    return str(folder)


def test_it_is_stored_without_outputs(notebook):
    for stored in notebook.cells:
        if stored.cell_type == "code":
            assert stored.outputs == []
            assert stored.execution_count is None


@pytest.mark.slow
def test_it_stops_at_once_where_the_accelerator_is_missing(notebook, tmp_path):
    set_up(notebook, ACCELERATOR="tpu")
    last = notebook.cells.index(cell(notebook, "preflight"))
    notebook.cells = notebook.cells[: last + 1]
    with pytest.raises(CellExecutionError, match="JAX found cpu where ACCELERATOR asks for tpu"):
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path):
    texts = {}
    for language in ("en", "de"):
        texts[language] = tmp_path / f"{language}.jsonl"
        write_text(made_up_text(language, 30_000, 1)[0], texts[language])
    set_up(
        notebook,
        ACCELERATOR="cpu",
        SOURCE=random_model(tmp_path / "source", texts["en"], width=16),
        HELPER=random_model(tmp_path / "helper", texts["de"], width=8),
        TEXT=str(texts["de"]),
        TRAINING_DOCUMENTS=40,
        VALIDATION_DOCUMENTS=4,
        STEPS=4,
        BATCH_SIZE=4,
        SEQUENCE_LENGTH=32,
        PROMPT="Heute ist",
    )
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()

    work = tmp_path / "german"
    assert read_json(work / "start" / "transfer.json")
    (image,) = (out for out in cell(notebook, "plot").outputs if out.output_type == "display_data")
    assert "image/png" in image.data
    pytorch = cell(notebook, "pytorch").outputs
    printed = "".join(out.text for out in pytorch if out.get("name") == "stdout")
    assert printed.startswith("Heute ist")
