import numpy as np
import pytest

pytest.importorskip("lm_eval")
from clp_jax.evaluate.tasks import run
from clp_jax.evaluate.tasks.calibrate import CONTENT_FREE, calibrated
from clp_jax.evaluate.tasks.report import summarise

from .stub import Stub, loaded, noise

QUESTION = "Tweet: {}\nFrage: Ist dieser Tweet beleidigend?\nAntwort:"
ANSWERS = (" Nein", " Ja")


def likelihood(context, answer):
    return -3 + noise("model", context, answer) + (answer == " Nein")


@pytest.fixture(scope="module")
def model():
    return Stub(lambda request: likelihood(*request.args))


def score(model, task, published, **options):
    found = run.run_harness(model, loaded([task], task_data=published), **options)
    samples = found.results["samples"][task]
    return found, samples, calibrated(model, found.tasks[task], samples)


def test_calibrated_scores_are_those_of_the_papers(model, published):
    task = "clp_germeval2018_coarse_question"
    found, samples, scores = score(model, task, published)
    for row, sample in enumerate(samples):
        prompt = QUESTION.format(sample["doc"]["text"])
        asked = np.array([likelihood(prompt, answer) for answer in ANSWERS], np.float64)
        # Holtzman et al. (2021): log P(y | x) - log P(y | what every prompt ends with).
        domain = "Frage: Ist dieser Tweet beleidigend?\nAntwort:"
        alone = np.array([likelihood(domain, answer) for answer in ANSWERS], np.float64)
        np.testing.assert_allclose(scores["pmi_dc"][row], asked - alone, rtol=1e-12)
        # Zhao et al. (2021): W p with W the inverse diagonal of the content-free probabilities.
        empty = [
            np.exp([likelihood(QUESTION.format(filler), answer) for answer in ANSWERS])
            for filler in CONTENT_FREE
        ]
        content_free = np.mean([each / each.sum() for each in empty], axis=0)
        expected = np.exp(asked) / np.exp(asked).sum() / content_free
        ours = np.exp(scores["cc"][row])
        np.testing.assert_allclose(ours / ours.sum(), expected / expected.sum(), rtol=1e-12)
    metrics = summarise(found.results, found.tasks, {task: scores})[task]["metrics"]
    gold = np.array([sample["doc"]["label"] for sample in samples])
    for name in ("pmi_dc", "cc"):
        right = (scores[name].argmax(1) == gold).mean()
        assert metrics[f"acc_{name}"]["score"] == pytest.approx(right)
        assert metrics[f"f1_{name}"]["majority"] == metrics["f1"]["majority"]
    lengths = np.array([len(answer.strip().encode()) for answer in ANSWERS])
    by_byte = [
        (np.array([responses[0][0] for responses in sample["resps"]]) / lengths).argmax()
        for sample in samples
    ]
    assert metrics["acc_bytes"]["score"] == pytest.approx((np.array(by_byte) == gold).mean())


def test_examples_before_a_question_stay(published):
    asked = []
    model = Stub(lambda request: asked.append(request.args[0]) or 0.0)
    score(model, "clp_germeval2018_coarse_question", published, num_fewshot=1, limit=2)
    shots = [context for context in asked if context.endswith(QUESTION.format("N/A"))]
    assert len(shots) == 4
    assert all(context.startswith("Tweet: ") and "\n\nTweet: N/A" in context for context in shots)


def test_a_question_among_its_choices_is_not_calibrated(model, published):
    assert score(model, "clp_xnli_de_paper", published, limit=3)[2] == {}
    assert score(model, "clp_oscar_de", published)[2] == {}
