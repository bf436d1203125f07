from collections import Counter

import numpy as np
import pytest
from transformers import AutoTokenizer

from clp_jax.tokenizer import Tokenizer
from clp_jax.transfer import calibration as module
from clp_jax.transfer.calibration import make_sample

DOCUMENTS = [f"Die Katze {i} schläft auf dem Dach. The cat {'ä' * i} sleeps." for i in range(7)]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return AutoTokenizer.from_pretrained(tiny_tokenizer)


def encoded(tokenizer, documents):
    """The ids of a half: documents with an end-of-text around and between them."""
    ids = [0]
    for document in documents:
        ids += [*tokenizer.encode(document, add_special_tokens=False), 0]
    return ids


def test_frequencies_are_those_of_every_other_document(tokenizer):
    sample = make_sample(DOCUMENTS, Tokenizer.of(tokenizer), rows=310, positions=8)
    counts = Counter(encoded(tokenizer, DOCUMENTS[::2]))
    size = len(tokenizer)
    expected = np.array([counts[id] + module.UNSEEN for id in range(size)])
    np.testing.assert_allclose(sample.frequencies[:size], expected / expected.sum(), rtol=1e-6)
    assert (sample.frequencies[size:] < 1e-9).all()
    assert (sample.frequencies > 0).all()
    assert sample.frequencies.sum() == pytest.approx(1)


def test_windows_of_both_halves_follow_their_text(tokenizer):
    sample = make_sample(DOCUMENTS, Tokenizer.of(tokenizer), rows=300, positions=8)
    for windows, half in (
        (sample.calibration, DOCUMENTS[::2]),
        (sample.evaluation, DOCUMENTS[1::2]),
    ):
        ids = encoded(tokenizer, half)
        count = (len(ids) - 1) // 8
        # Eight predictions a window; neighbours share a token.
        expected = [ids[8 * i : 8 * i + 9] for i in range(count)]
        assert windows.tolist() == expected
    evaluated = DOCUMENTS[1::2]
    per_token = sum(len(d.encode()) for d in evaluated) / len(encoded(tokenizer, evaluated))
    assert sample.bytes_per_token == pytest.approx(per_token)


def test_a_long_text_is_sampled_evenly(tokenizer):
    sample = make_sample(DOCUMENTS * 100, Tokenizer.of(tokenizer), rows=300, positions=4)
    assert len(sample.calibration) == module.CALIBRATION_WINDOWS
    assert len(sample.evaluation) == module.EVALUATION_WINDOWS
    assert len(np.unique(sample.evaluation, axis=0)) > module.EVALUATION_WINDOWS / 4


def test_windows_have_a_length_where_the_model_has_none(tokenizer):
    sample = make_sample(DOCUMENTS * 30, Tokenizer.of(tokenizer), rows=300, positions=None)
    assert sample.calibration.shape[1] == module.LONGEST_WINDOW + 1


def test_a_text_shorter_than_a_window_is_one_window(tokenizer):
    sample = make_sample(["Die Katze", "Das Dach"], Tokenizer.of(tokenizer), rows=300, positions=64)
    assert sample.calibration.tolist() == [encoded(tokenizer, ["Die Katze"])]
    assert sample.evaluation.tolist() == [encoded(tokenizer, ["Das Dach"])]
