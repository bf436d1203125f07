import math

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from clp_jax.transfer.methods import Recipe
from clp_jax.transfer.reading import Reading, read_with_source, read_with_target
from clp_jax.transfer.report import verdict
from clp_jax.transfer.selection import Choice, Score


@pytest.fixture(scope="module")
def setting(make_setting, pair, text):
    return make_setting(*pair, text)


def ids_of(folder, documents):
    """A half of the text: documents with an end-of-text around and between them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end, ids = tokenizer.eos_token_id, [tokenizer.eos_token_id]
    for document in documents:
        ids += [*tokenizer.encode(document, add_special_tokens=False), end]
    return ids


def by_hand(ids, documents, rows, dim, length):
    """Tokens per byte and word, and operations per byte of a GPT-2 with one layer."""
    size, words = (sum(map(len, part)) for part in (
        [d.encode() for d in documents], [d.split() for d in documents]))  # fmt: skip
    operations = 2 * (12 * dim * dim + rows * dim) + 4 * dim * length / 2
    return len(ids) / size, len(ids) / words, operations * len(ids) / size


def test_the_source_reads_with_its_own_tokenizer(setting, pair, text):
    torch = pytest.importorskip("torch")
    found = read_with_source(setting, measured=True)
    evaluated = text[1::2]
    ids = ids_of(pair[0], evaluated)
    figures = found.tokens_per_byte, found.tokens_per_word, found.flops_per_byte
    assert figures == pytest.approx(by_hand(ids, evaluated, 16, 16, 8))
    model = AutoModelForCausalLM.from_pretrained(pair[0]).eval()
    windows = np.stack([ids[8 * i : 8 * i + 9] for i in range((len(ids) - 1) // 8)])
    windows = windows[np.unique(np.linspace(0, len(windows) - 1, 64).astype(int))]
    with torch.no_grad():
        logits = model(torch.tensor(windows[:, :-1])).logits.double()
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(windows[:, 1:]).flatten()
    )
    bits = float(nats) / math.log(2) * found.tokens_per_byte
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_without_a_loss_no_model_is_loaded(setting, monkeypatch):
    setting.release()
    monkeypatch.setattr("clp_jax.transfer.pair.Evaluator", None)
    found = read_with_source(setting, measured=False)
    assert found.bits_per_byte is None
    assert found.flops_per_byte > 0


def test_the_new_model_reads_the_same_documents(setting, pair, text):
    recipe = Recipe("mean", 1.0)
    tables = setting.tables(recipe)
    found = read_with_target(Choice(setting, recipe), tables, measured=True)
    evaluated, rows = text[1::2], setting.layout.rows
    figures = found.tokens_per_byte, found.tokens_per_word, found.flops_per_byte
    assert figures == pytest.approx(by_hand(ids_of(pair[1], evaluated), evaluated, rows, 16, 8))
    scores = [Score(setting, recipe, found.bits_per_byte)]
    assert read_with_target(Choice(setting, recipe, scores), tables, measured=True) == found
    assert read_with_target(Choice(setting, recipe), tables, measured=False).bits_per_byte is None


OWN = Reading(2.0, 0.5, 3.0, 100e6, 0.0).to_dict()
NEW = Reading(2.25, 0.25, 1.5, 60e6, 0.0).to_dict()


@pytest.mark.parametrize(
    ("source", "new", "words"),
    [
        (OWN, NEW, "takes 40% less compute than the source's own. Before training, the new model "
                   "needs 0.25 bits per byte more."),
        (NEW, OWN, "takes 67% more compute than the source's own. Before training, the new model "
                   "needs 0.25 bits per byte less."),
        (OWN | {"bits_per_byte": None}, NEW, "takes 40% less compute than the source's own."),
        (OWN | {"unknown": 0.25}, NEW, "cannot encode 25.0% of the bytes, so the source's figures "
                                       "are too good."),
    ],
)  # fmt: skip
def test_what_a_tokenizer_changes_in_words(source, new, words):
    assert verdict({"readings": {"source": source, "new": new}}).endswith(words)


def test_nothing_to_compare():
    assert verdict({"readings": {"new": NEW}}) == verdict({}) == ""
