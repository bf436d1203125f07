import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from clp_jax.transfer.methods import METHODS
from clp_jax.transfer.report import CONTRIBUTORS
from clp_jax.transfer.stage import transfer_model

from .conftest import used_by

TABLE = "transformer.wte.weight"


@pytest.fixture
def trace(pair, vectors, tmp_path):
    """The lines of a method's trace, its manifest and its table."""

    def make(method, **options):
        out = tmp_path / method
        options = used_by(method, vectors) | {"trace": True, "method": method} | options
        manifest = transfer_model(*pair, out, **options)
        lines = (out / "transfer_trace.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines], manifest, load_file(out / "model.safetensors")

    return make


def test_no_trace_unless_asked_for(trace, tmp_path):
    with pytest.raises(FileNotFoundError):
        trace("mean", trace=False)
    assert (tmp_path / "mean" / "transfer.json").exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_row_has_a_line_and_the_manifests_origin(trace, pair, method):
    lines, manifest, _ = trace(method)
    assert [line["id"] for line in lines] == list(range(21))
    assert {line["table"] for line in lines} == {TABLE}
    names = AutoTokenizer.from_pretrained(pair[1]).convert_ids_to_tokens([*range(21)])
    assert [line["token"] for line in lines] == names
    counts = dict(manifest["tables"][TABLE]["rows"])
    del counts["total"]
    for origin, count in counts.items():
        assert sum(line["origin"] == origin for line in lines) == count
    for line in lines:
        expected = {"copied": 1, "role": 1, "padding": 0, "fallback: mean": 0}
        if line["origin"] in expected:
            assert len(line["from"]) == expected[line["origin"]]
        sizes = [abs(weight) for _, weight in line["from"]]
        assert sizes == sorted(sizes, reverse=True)
        assert len(sizes) <= CONTRIBUTORS


def test_copied_rows_name_the_token_they_are_copied_from(trace, pair):
    lines, _, tables = trace("mean")
    source = load_file(pair[0] / "model.safetensors")[TABLE]
    ids = AutoTokenizer.from_pretrained(pair[0]).get_vocab()
    copied = [line for line in lines if line["origin"] in ("copied", "role")]
    assert len(copied) > 11
    for line in copied:
        ((name, weight),) = line["from"]
        assert weight == 1
        np.testing.assert_array_equal(tables[TABLE][line["id"]], source[ids[name]])


def test_mixed_rows_name_the_token_with_its_share(trace):
    lines, _, _ = trace("ridge", source_weight=0.25)
    mixed = [line for line in lines if line["origin"] == "mixed"]
    assert len(mixed) == 11
    assert all(line["from"] == [[line["token"], 0.25]] for line in mixed)


def test_mixed_rows_name_shares_that_differ(trace):
    lines, manifest, _ = trace("ridge", by_reliability=True)
    shares = [line["from"][0][1] for line in lines if line["origin"] == "mixed"]
    assert len(shares) == 11
    assert 0 < min(shares) < max(shares) == 1
    quantiles = manifest["tables"][TABLE]["facts"]["source_weight"]
    assert quantiles["0.0"] == pytest.approx(min(shares), abs=1e-6)


def test_tokens_are_shown_as_the_text_they_stand_for(byte_pair, tmp_path):
    transfer_model(*byte_pair, tmp_path / "out", method="clp-topk", trace=True)
    lines = (tmp_path / "out" / "transfer_trace.jsonl").read_text("utf-8").splitlines()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for line in map(json.loads, lines):
        text = tokenizer.decode([line["id"]])
        if line["token"] is not None and "\ufffd" not in text and line["origin"] != "role":
            assert line["text"] == text
        if line["origin"] == "copied" and "\ufffd" not in text:
            assert line["from"] == [[text, 1.0]]
    assert any(line["token"] == "ĠDach" != line["text"] for line in map(json.loads, lines))


def test_computed_rows_are_their_contributors(trace, pair, monkeypatch):
    """With room for all contributors, the weights and the source's rows give the row back."""
    monkeypatch.setattr("clp_jax.transfer.report.CONTRIBUTORS", 11)
    lines, _, tables = trace("clp-sparse")
    source = load_file(pair[0] / "model.safetensors")[TABLE]
    ids = AutoTokenizer.from_pretrained(pair[0]).get_vocab()
    computed = [line for line in lines if line["origin"] == "combined"]
    assert computed
    for line in computed:
        row = sum(weight * source[ids[name]] for name, weight in line["from"])
        # Weights are written with six decimals.
        np.testing.assert_allclose(tables[TABLE][line["id"]], row, atol=1e-4)
