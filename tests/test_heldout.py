"""What chooses and calibrates a transfer is never what the documentation measures it on."""

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    *sorted(str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs").rglob("*.md")),
]


def texts(command: str, document: str) -> set[str]:
    """The text that a command gets as ``data``, on one line, continued ones or in parentheses."""
    found = re.findall(rf"{command}(?:\((?:[^)]*)\)|(?:[^\n\\]|\\\n)*)", document)
    return {text for call in found for text in re.findall(r"data[ =]\[?['\"]([^'\"]+)", call)}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_measures_on_the_text_that_chose(page):
    document = (REPOSITORY / page).read_text("utf-8")
    chosen = texts("clp-jax transfer", document) | texts("transfer_model", document)
    measured = texts("clp-jax evaluate", document)
    assert not chosen & measured
    if page == "README.md":
        assert chosen
        assert measured


def test_the_notebook_chooses_by_training_text_and_measures_on_the_other():
    cells = json.loads((REPOSITORY / "colab" / "clp_transfer.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert 'transfer_model(SOURCE, HELPER, start, data=[texts["training"]])' in code
    assert '[texts["validation"]]' in code.split("evaluate_perplexity(")[1]
