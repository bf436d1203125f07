import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn import metrics

from clp_jax.evaluate.tasks import confusion

REFERENCES = {
    confusion.accuracy: metrics.accuracy_score,
    confusion.macro_f1: lambda gold, guess: metrics.f1_score(gold, guess, average="macro"),
    confusion.positive_f1: lambda gold, guess: metrics.f1_score(
        gold, guess, labels=[1], average="macro", zero_division=0
    ),
    confusion.matthews: metrics.matthews_corrcoef,
}


@pytest.mark.parametrize("score", REFERENCES, ids=lambda score: score.__name__)
@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_tables_are_those_of_scikit_learn(score, classes):
    rng = np.random.default_rng(0)
    # With six examples, classes are often missing.
    pairs = rng.integers(classes, size=(50, 6, 2))
    tables = np.stack([confusion.confusion(draw, classes) for draw in pairs])
    expected = [REFERENCES[score](draw[:, 0], draw[:, 1]) for draw in pairs]
    np.testing.assert_allclose(score(tables), expected, atol=1e-12)


def test_f1_of_classes():
    pairs = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])
    found = confusion.class_f1(confusion.confusion(pairs, 3)[None])[0]
    np.testing.assert_allclose(found, [2 / 3, 4 / 5, 0])
