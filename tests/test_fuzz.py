"""A sample of what `scripts/fuzz_inputs.py` tries: damaged models, converted and compared."""

import importlib.util
import io
import sys

import pytest

from tests.conftest import REPOSITORY

from .marks import slow


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", REPOSITORY / "scripts/fuzz_inputs.py")
    module = sys.modules["fuzz"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def material(fuzz, tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    fuzz.make_models(folder)
    fuzz.make_families(folder)
    return folder


@pytest.mark.parametrize("kind", ["config", slow("family"), slow("tokenizer"), "bytes", "weights"])
def test_damaged_models_succeed_or_end_in_one_sentence(fuzz, material, tmp_path, kind):
    endings, number = [], 0
    while len(endings) < 8:
        scratch = tmp_path / str(number)
        scratch.mkdir()
        case = fuzz.draw(number, material, scratch, lambda name: name == kind)
        if case.arguments[0] in ("convert", "vocab"):
            said = io.StringIO()
            endings.append(fuzz.judge(case, fuzz.call(case.run, said), said.getvalue()))
        number += 1
    assert {ending.ending for ending in endings} <= {"fine", "one sentence"}, endings
    assert any(ending.ending == "one sentence" for ending in endings)
