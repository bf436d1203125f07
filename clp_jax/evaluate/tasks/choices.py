"""The choices of multiple-choice tasks: which are right, which a model prefers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from clp_jax.evaluate.tasks.scores import Answers

Likelihoods = Float[np.ndarray, "example choice"]
Predicted = Int[np.ndarray, " example"]


def answers_of(task: Any, docs: Sequence[Mapping[str, Any]]) -> Answers | None:
    """The choices of a multiple-choice task; None for other tasks, or if one has no right choice.

    The harness scores questions without a right choice too: as wrong.
    """
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    choices = [[*task.doc_to_choice(doc)] for doc in docs]
    target = task.doc_to_text if task.multiple_input else task.doc_to_target
    right = np.zeros((len(docs), max(map(len, choices))), bool)
    for row, doc, names in zip(right, docs, choices, strict=True):
        of_doc = target(doc)
        places = {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
        several = of_doc if isinstance(of_doc, list) else [of_doc]
        row[[places[one] for one in several if one in places]] = True
    if not right.any(1).all():
        return None
    named = (task.config.metadata or {}).get("classes")
    same = all(names == choices[0] for names in choices)
    return Answers(
        counts=np.array([len(names) for names in choices]),
        right=right,
        classes=named or (choices[0] if same else None),
    )


def likelihoods(samples: Sequence[Mapping[str, Any]], answers: Answers) -> Likelihoods:
    """The log-likelihoods of the choices in nats; minus infinity where an example has fewer."""
    found = np.full(answers.right.shape, -np.inf)
    for row, sample, count in zip(found, samples, answers.counts, strict=True):
        row[:count] = [responses[0][0] for responses in sample["resps"][:count]]
    return found


def by_length(
    task: Any, samples: Sequence[Mapping[str, Any]], scores: Likelihoods
) -> dict[str, Predicted]:
    """The preferred choices by log-likelihood: as it is, per character, per UTF-8 byte.

    Those are the harness's ``acc``, ``acc_norm`` and ``acc_bytes``.
    """
    characters, sizes = np.ones(scores.shape), np.ones(scores.shape)
    for row, sample in enumerate(samples):
        for column, choice in enumerate(task.doc_to_choice(sample["doc"])):
            characters[row, column] = len(choice)
            sizes[row, column] = len(choice.encode())
    return {
        "acc": scores.argmax(1),
        "acc_norm": (scores / characters).argmax(1),
        "acc_bytes": (scores / sizes).argmax(1),
    }
