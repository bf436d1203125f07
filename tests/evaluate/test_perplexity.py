import json
import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from clp_jax.checkpoint.hf import load_model
from clp_jax.cli import main
from clp_jax.cli.evaluate import _texts_by_name
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError
from clp_jax.evaluate.figures import Perplexity
from clp_jax.evaluate.perplexity import evaluate_perplexity, measure_perplexity
from clp_jax.loss import window_losses
from clp_jax.mesh import make_mesh
from clp_jax.results import read_results

from ..marks import slow


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder)


@pytest.fixture(scope="module")
def corpus(texts, tokenizer):
    return Corpus.from_documents(texts, tokenizer)


def test_figures_by_hand():
    figures = Perplexity(nll=100 * math.log(2), tokens=50, words=20, bytes=100)
    assert figures.loss == pytest.approx(2 * math.log(2))
    assert figures.token_perplexity == pytest.approx(4)
    assert figures.word_perplexity == pytest.approx(32)
    assert figures.byte_perplexity == pytest.approx(2)
    assert figures.bits_per_byte == pytest.approx(1)
    assert json.loads(json.dumps(figures.to_dict()))["word_perplexity"] == pytest.approx(32)


def test_a_perplexity_that_overflows_is_infinite():
    assert Perplexity(nll=1e6, tokens=1000, words=10, bytes=1000).word_perplexity == math.inf


def test_intervals_are_those_of_a_bootstrap_over_documents():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 200, 60)
    documents = np.stack([tokens * rng.normal(3, 0.5, 60), tokens, tokens // 2, 4 * tokens], axis=1)
    nll, *counts = float(documents[:, 0].sum()), *map(int, documents[:, 1:].sum(0))
    found = Perplexity(nll, *counts, documents=documents).intervals
    expected = bootstrap(
        documents[:, [0, 3]].T,
        lambda nll, size, axis: nll.sum(axis) / size.sum(axis) / math.log(2),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = expected.high - expected.low
    assert found["bits_per_byte"] == pytest.approx((expected.low, expected.high), abs=0.1 * width)
    for figure, unit in (("token_perplexity", 1), ("byte_perplexity", 3)):
        low, high = found[figure]
        assert low < math.exp(nll / documents[:, unit].sum()) < high
    assert Perplexity(nll, *counts, documents=documents[:1]).intervals == {}


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([["a.txt", "b.txt"], ["c.txt"]], {"": ["a.txt", "b.txt", "c.txt"]}),
        ([["de=a.txt", "b.txt", "en=c.txt"]], {"de": ["a.txt", "b.txt"], "en": ["c.txt"]}),
        ([["de=a.txt"], ["en=b.txt"], ["de=c"]], {"de": ["a.txt", "c"], "en": ["b.txt"]}),
        ([["./lang=de/a.txt", "hf://a/b:x=y"]], {"": ["./lang=de/a.txt", "hf://a/b:x=y"]}),
    ],
)
def test_names_of_texts(values, texts):
    assert _texts_by_name(values) == texts


def test_several_models_on_several_texts(model_folder, texts, tmp_path, capsys):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("German", "short")}
    for file, count in zip(files.values(), (4, 1), strict=True):
        lines = (json.dumps({"text": text}) for text in texts[:count])
        file.write_text("\n".join(lines), "utf-8")
    (tmp_path / "other").symlink_to(model_folder)
    data = [f"{name}={file}" for name, file in files.items()]
    main(["evaluate", "perplexity", "--model", str(model_folder), str(tmp_path / "other"),
          "--data", *data, "--json", str(tmp_path / "figures.json")])  # fmt: skip
    results = json.loads((tmp_path / "figures.json").read_text())["results"]
    models = [str(model_folder), str(tmp_path / "other")]
    asked = [(name, model) for name in files for model in models]
    assert [(one["data"], one["model"]) for one in results] == asked
    alone = evaluate_perplexity(model_folder, [str(files["German"])])
    assert [one["nll"] for one in results[:2]] == pytest.approx([alone.nll] * 2)
    low, high = results[0]["intervals"]["bits_per_byte"]
    assert low < alone.bits_per_byte < high
    assert (results[0]["sequence_length"], results[0]["stride"]) == (128, 128)
    with pytest.raises(UserError, match="holds figures of several models"):
        read_results([tmp_path / "figures.json"])
    (tmp_path / "figures.json").write_text(json.dumps({"results": results[::2]}))
    read = read_results([tmp_path / "figures.json"]).texts
    assert [text.name for text in read] == [*files]
    assert (read[0].low, read[0].high, read[1].low) == (low, high, None)
    printed = capsys.readouterr().out
    assert f"{alone.bits_per_byte:.4f} ({low:.4f} to {high:.4f})" in printed
    assert "float32; documents in one stream; windows of 128 tokens" in printed
    with pytest.raises(SystemExit, match=r"a\.txt has no name, and other texts have"):
        main(["evaluate", "perplexity", "--model", "m", "--data", "a.txt", "--data", "b=c.txt"])


@pytest.mark.parametrize("length", [5, slow(32), 128])
def test_equal_to_the_loss_of_transformers_on_the_same_windows(model, model_folder, corpus, length):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(model_folder)
    ids = torch.tensor(corpus.tokens().astype(np.int64))
    nll = 0.0
    for start in range(0, len(ids) - 1, length):
        window = ids[None, start : start + length + 1]
        with torch.no_grad():
            logits = theirs(window[:, :-1]).logits
            nll += torch.nn.functional.cross_entropy(
                logits[0].double(), window[0, 1:], reduction="sum"
            ).item()
    ours = measure_perplexity(model, corpus, sequence_length=length, batch_size=3)
    assert ours.nll == pytest.approx(nll, rel=1e-5)
    assert ours.tokens == len(ids) - 1


def test_units_are_counted_on_the_text(model, corpus, texts, tokenizer):
    figures = measure_perplexity(model, corpus, sequence_length=32, batch_size=2)
    assert figures.words == sum(len(text.split()) for text in texts)
    assert figures.bytes == sum(len(text.encode()) for text in texts)
    encoded = sum(len(tokenizer.encode(text)) for text in texts)
    assert figures.tokens == encoded + len(texts)


@pytest.mark.parametrize(("shape", "batch_size"), [slow((1, 4, 1), 16), ((2, 2, 2), 1)])
def test_equal_on_every_mesh_and_for_every_batch_size(
    model, model_folder, corpus, shape, batch_size
):
    one = measure_perplexity(model, corpus, sequence_length=16, batch_size=4)
    mesh = make_mesh(*shape, devices=jax.devices()[: math.prod(shape)])
    many = measure_perplexity(
        load_model(model_folder, mesh=mesh),
        corpus,
        sequence_length=16,
        batch_size=batch_size,
        mesh=mesh,
    )
    assert many.tokens == one.tokens
    assert many.nll == pytest.approx(one.nll, rel=1e-6)


def test_measuring_again_compiles_nothing(model, corpus):
    measure_perplexity(model, corpus, sequence_length=16, batch_size=4)
    programs = window_losses._cache_size()
    measure_perplexity(model, corpus, sequence_length=16, batch_size=4)
    assert window_losses._cache_size() == programs


def test_a_stored_model_on_files(model_folder, corpus, texts, tmp_path):
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts), "utf-8")
    stored = evaluate_perplexity(model_folder, [str(file)], batch_size=4, text_field="body")
    measured = measure_perplexity(
        load_model(model_folder), corpus, sequence_length=128, batch_size=4
    )
    assert stored.nll == pytest.approx(measured.nll, rel=1e-6)
    assert replace(stored, nll=measured.nll) == measured
    rough = evaluate_perplexity(
        model_folder, [str(file)], batch_size=4, text_field="body", dtype="bfloat16"
    )
    assert stored.dtype == "float32"
    assert rough.to_dict()["dtype"] == "bfloat16"
    assert rough.nll != stored.nll


def test_a_window_longer_than_the_model_reads_is_refused(model, corpus):
    with pytest.raises(UserError, match="129 is longer than the model's 128 positions"):
        measure_perplexity(model, corpus, sequence_length=129, batch_size=1)


def test_data_without_text_are_refused(model_folder, model, tokenizer, tmp_path):
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"blank\.txt"):
        evaluate_perplexity(model_folder, [str(tmp_path / "blank.txt")])
    with pytest.raises(UserError, match="no text"):
        measure_perplexity(
            model, Corpus.from_documents([" "], tokenizer), sequence_length=8, batch_size=1
        )
