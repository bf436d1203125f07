"""Choices compared with how likely they are without the question."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

from clp_jax.evaluate.tasks.choices import answers_of, likelihoods

CONTENT_FREE = ("N/A", "[MASK]", "")
"""What stands in for a question's content; those of Zhao et al. (2021)."""

Request = tuple[str, str]
"""A context and its continuation."""


def calibrated(
    model: Any, task: Any, samples: Sequence[Mapping[str, Any]]
) -> dict[str, Float[np.ndarray, "example choice"]]:
    """Two calibrated scores of the choices of a multiple-choice task.

    ``pmi_dc`` is the domain-conditional pointwise mutual information (Holtzman et al., 2021,
    equation 2): the log-likelihood of a choice after the question less that after the domain's
    premise alone, which is what every prompt ends with, such as "Answer:". ``cc`` is contextual
    calibration (Zhao et al., 2021, section 5): the probability of a choice among the choices,
    divided by its mean probability after prompts whose content is `CONTENT_FREE`; examples before
    a question stay.

    Args:
        model: a model of the harness.
        task: the harness's task.
        samples: its samples, as the harness logs them.

    Returns:
        The scores by name, minus infinity where an example has fewer choices; nothing for other
        tasks, and for those that filter answers or whose choices contain the question.
    """
    choices = answers_of(task, [sample["doc"] for sample in samples])
    if choices is None or len({sample["filter"] for sample in samples}) > 1:
        return {}
    scores = likelihoods(samples, choices)
    prompts = [_prompts(task, sample) for sample in samples]
    if any(prompt is None for prompt in prompts):
        return {}
    continuations = [
        [answer for _, answer in sample["arguments"][:count]]
        for sample, count in zip(samples, choices.counts, strict=True)
    ]
    score = _scorer(
        model,
        (
            (context, answer)
            for contexts, answers in zip(prompts, continuations, strict=True)
            for context in contexts or ()
            for answer in answers
        ),
    )
    premise, content_free = np.zeros_like(scores), np.zeros_like(scores)
    for row, (contexts, answers) in enumerate(zip(prompts, continuations, strict=True)):
        domain, *empty = [[score((context, x)) for x in answers] for context in contexts or ()]
        premise[row, : len(answers)] = domain
        content_free[row, : len(answers)] = logsumexp(log_softmax(empty, axis=1), axis=0)
    return {"pmi_dc": scores - premise, "cc": scores - content_free}


def _prompts(task: Any, sample: Mapping[str, Any]) -> list[str] | None:
    """The domain's premise, and the prompt with each of `CONTENT_FREE` for its content."""
    doc, (context, _) = sample["doc"], sample["arguments"][0]
    question = task.doc_to_text(doc)
    if not isinstance(question, str) or not question or question not in context:
        return None
    before, _, after = context.rpartition(question)
    try:
        empty = [
            task.doc_to_text({k: filler if isinstance(v, str) else v for k, v in doc.items()})
            for filler in CONTENT_FREE
        ]
    except Exception:  # A task's own function may need what was taken out.
        return None
    letters = takewhile(
        lambda letters: len({*letters}) == 1, zip(*map(reversed, empty), strict=False)
    )
    ending = "".join(letter for letter, *_ in letters)[::-1]
    premise = re.sub(r"^\W+", "", ending)
    return [premise, *(before + text + after for text in empty)]


def _scorer(model: Any, requests: Iterable[Request]) -> Callable[[Request], float]:
    from lm_eval.api.instance import Instance

    asked = [*dict.fromkeys(requests)]
    found = model.loglikelihood(
        [Instance("loglikelihood", {}, request, i) for i, request in enumerate(asked)]
    )
    scores = {request: score for request, (score, _) in zip(asked, found, strict=True)}
    return scores.__getitem__
