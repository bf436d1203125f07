"""Scores of confusion tables, many at once.

A table counts examples: rows are the right classes, columns the predicted ones.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num


def confusion(
    pairs: Int[np.ndarray, "example 2"], classes: int
) -> Int[np.ndarray, "gold predicted"]:
    """Count pairs of right and predicted class."""
    counts = np.bincount(pairs[:, 0] * classes + pairs[:, 1], minlength=classes**2)
    return counts.reshape(classes, classes)


def accuracy(tables: Num[np.ndarray, "draw gold predicted"]) -> Float[np.ndarray, " draw"]:
    """The share of examples on the diagonal."""
    return _diagonal(tables).sum(-1) / tables.sum((-2, -1))


def class_f1(tables: Num[np.ndarray, "draw gold predicted"]) -> Float[np.ndarray, "draw gold"]:
    """F1 of each class; 0 of one that is neither right nor predicted."""
    present = tables.sum(-1) + tables.sum(-2)
    return _divide(2 * _diagonal(tables), present)


def macro_f1(tables: Num[np.ndarray, "draw gold predicted"]) -> Float[np.ndarray, " draw"]:
    """Mean F1 over the classes that are right or predicted somewhere, as scikit-learn's."""
    present = tables.sum(-1) + tables.sum(-2) > 0
    return class_f1(tables).sum(-1) / present.sum(-1)


def positive_f1(tables: Num[np.ndarray, "draw gold predicted"]) -> Float[np.ndarray, " draw"]:
    """F1 of class 1."""
    return class_f1(tables)[..., 1]


def matthews(tables: Num[np.ndarray, "draw gold predicted"]) -> Float[np.ndarray, " draw"]:
    """Matthews correlation of any number of classes (Gorodkin, 2004)."""
    tables = tables.astype(float)
    gold, predicted, total = tables.sum(-1), tables.sum(-2), tables.sum((-2, -1))
    covariance = _diagonal(tables).sum(-1) * total - (gold * predicted).sum(-1)
    spread = (total**2 - (gold**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return _divide(covariance, np.sqrt(spread))


def _diagonal(tables: Any) -> Any:
    return np.diagonal(tables, axis1=-2, axis2=-1)


def _divide(top: Any, bottom: Any) -> Any:
    """The quotient; 0 where the divisor is."""
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=np.asarray(bottom) != 0)
