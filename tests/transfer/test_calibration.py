import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from clp_jax.checkpoint.hf import checkpoint_tensors
from clp_jax.checkpoint.hub import load_tokenizer, read_config
from clp_jax.mesh import make_mesh, single_device_mesh
from clp_jax.models import read_decoder_config, weight_table
from clp_jax.transfer.calibration import Evaluator, make_sample

DOCUMENTS = [f"Die Katze {i} schläft auf dem Dach. The cat sleeps." * 2 for i in range(20)]
HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def sample(tiny_tokenizer):
    tokenizer = load_tokenizer(tiny_tokenizer)
    return make_sample(DOCUMENTS, tokenizer, rows=300, positions=16)


@pytest.fixture(scope="module")
def make_trial(tiny_model, sample):
    """The model under evaluator, and its own tables; untied by a head of other random rows."""

    def make(*, mesh=None, tied=True):
        config = read_config(tiny_model)
        decoder = read_decoder_config(config)
        tensors = checkpoint_tensors(tiny_model, decoder)
        (name,) = (w.name for w in weight_table(decoder) if w.axes[0] == "vocab")
        tables = {name: np.array(tensors[name].read())}
        if not tied:
            config |= {"tie_word_embeddings": False}
            tables[HEAD] = np.random.default_rng(1).normal(0, 0.1, (300, 32)).astype(np.float32)
        mesh = mesh or single_device_mesh()
        return Evaluator(config, tensors, list(tables), sample, mesh), tables

    return make


@pytest.fixture(scope="module")
def predictions(tiny_model):
    """What PyTorch predicts of windows, with the tables of a tied model replaced."""
    torch = pytest.importorskip("torch")
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()

    def predict(windows, tables):
        (table,) = tables.values()
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(torch.tensor(table))
            logits = model(torch.tensor(windows[:, :-1], dtype=torch.long)).logits
            return torch.log_softmax(logits.double(), dim=-1).numpy()

    return predict


def calibrated(evaluator, tables):
    after = {name: table.copy() for name, table in tables.items()}
    evaluator.calibrate(after)
    return after


def divergence(frequencies, predicted):
    """Kullback-Leibler, in nats, of the text's frequencies from the mean prediction."""
    mean = np.exp(predicted).mean(axis=(0, 1))
    return np.sum(frequencies * np.log(frequencies / mean))


def test_loss_equals_pytorch(make_trial, predictions, sample):
    evaluator, tables = make_trial()
    predicted = predictions(sample.evaluation, tables)
    nats = -np.take_along_axis(predicted, sample.evaluation[:, 1:, None], axis=2).mean()
    expected = nats / math.log(2) / sample.bytes_per_token
    assert evaluator.loss(tables) == pytest.approx(expected, rel=1e-5)


def test_loss_is_that_of_the_tables_that_are_given(make_trial):
    evaluator, tables = make_trial()
    other = {name: 3 * table for name, table in tables.items()}
    before = evaluator.loss(tables)
    assert abs(evaluator.loss(other) - before) > 1e-3
    assert evaluator.loss(tables) == before


def test_calibration_brings_the_frequencies_of_the_text(make_trial, predictions, sample):
    evaluator, tables = make_trial()
    after = calibrated(evaluator, tables)
    first, last = (
        divergence(sample.frequencies, predictions(sample.calibration, t)) for t in (tables, after)
    )
    assert last < first / 10
    assert evaluator.loss(after) < evaluator.loss(tables)


def test_calibration_moves_the_heads_rows_along_one_direction(make_trial):
    evaluator, tables = make_trial(tied=False)
    after = calibrated(evaluator, tables)
    name = next(iter(tables))
    np.testing.assert_array_equal(after[name], tables[name])
    # With an untied head the mean hidden state is the same in every round.
    values = np.linalg.svd(after[HEAD] - tables[HEAD], compute_uv=False)
    assert values[1] < 1e-4 * values[0]


def test_calibration_needs_no_second_table():
    """Beside the table there are blocks of it: the text's model is on the devices."""
    rows, dim, rng = 40_000, 256, np.random.default_rng(0)
    evaluator = object.__new__(Evaluator)
    evaluator.paths, evaluator.sample = {HEAD: ()}, SimpleNamespace(frequencies=rng.random(rows))
    evaluator._expectations = lambda tables: (rng.random(rows), rng.normal(size=dim))
    table = np.zeros((rows, dim), np.float32)
    tracemalloc.start()
    evaluator.calibrate({HEAD: table})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.any()
    assert peak < 0.3 * table.nbytes


def test_eight_devices_agree_with_one(make_trial):
    (one, tables), (eight, _) = make_trial(), make_trial(mesh=make_mesh(2, 2, 2))
    assert eight.loss(tables) == pytest.approx(one.loss(tables), rel=1e-5)
    for name, table in calibrated(one, tables).items():
        np.testing.assert_allclose(calibrated(eight, tables)[name], table, atol=1e-5)
