"""The training examples of a task, asked exactly as its test questions are."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from clp_jax.data.corpus.examples import Example
from clp_jax.errors import UserError
from clp_jax.evaluate.tasks.choices import answers_of
from clp_jax.evaluate.tasks.report import clusters
from clp_jax.tokenizer import Tokenizer

HELD_OUT = 0.1
"""The share of the examples on which training stops early."""


def only_task(loaded: Any, name: str) -> tuple[str, Any]:
    """The one task that was loaded, by its name.

    Args:
        loaded: what `clp_jax.evaluate.tasks.load.load_tasks` returned.
        name: what was asked for.

    Raises:
        UserError: there are several, or it is not a question with choices.
    """
    if len(loaded["tasks"]) > 1:
        raise UserError(
            f"{name} names {len(loaded['tasks'])} tasks: choose one of "
            f"{', '.join(loaded['tasks'])}."
        )
    [(full, task)] = loaded["tasks"].items()
    if task.OUTPUT_TYPE != "multiple_choice" or task.multiple_input:
        raise UserError(
            f"The task {full} does not ask for one of several answers to a question: fine-tune on "
            "one that does, or on text with `clp-jax train`."
        )
    return full, task


def training_docs(name: str, task: Any, count: int | None) -> tuple[list[Any], list[Any]]:
    """A task's examples, in random order: those to train on, and held-out ones.

    They are the task's training split, or else the one that provides examples before a question.
    All examples on one passage are on the same side.

    Args:
        name: of the task.
        task: the harness's task.
        count: use only this many; None: all.

    Raises:
        UserError: there are too few.
    """
    scored = task.config.test_split if task.has_test_docs() else task.config.validation_split
    split = task.fewshot_cfg.split
    docs: Sequence[Any] = ()
    if task.has_training_docs():
        docs = task.training_docs()
    elif split not in (None, scored):
        docs = task.fewshot_docs()
    draw = np.random.default_rng(0)
    order = draw.permutation(len(docs))[:count]
    chosen = [docs[int(i)] for i in order]
    passages = _passages(task, chosen)
    held_out = draw.permutation(np.unique(passages))[: max(1, round(HELD_OUT * len(chosen)))]
    aside = np.isin(passages, held_out)
    if aside.all():
        raise UserError(
            f"The task {name} has {len(chosen)} training examples, too few to train on some and "
            "stop on others: give more, such as train.jsonl in the task data."
        )
    pairs = [*zip(chosen, aside.tolist(), strict=True)]
    return [doc for doc, held in pairs if not held], [doc for doc, held in pairs if held]


def _passages(task: Any, docs: Sequence[Any]) -> Int[np.ndarray, " example"]:
    return clusters(task, [{"doc": doc, "doc_id": i} for i, doc in enumerate(docs)])


def ask(name: str, task: Any, docs: Sequence[Any], tokenizer: Tokenizer) -> Iterator[Example]:
    """Questions without examples before them, and their right answers, as they are scored.

    Raises:
        UserError: an example has no right answer, or one that has no tokens.
    """
    from clp_jax.evaluate.harness import encode_pair

    answers = answers_of(task, docs)
    if answers is None:
        raise UserError(
            f"An example to train on of the task {name} has no right answer: remove it."
        )
    asked = zip(docs, answers.right, strict=True)
    for doc, right in tqdm(asked, total=len(docs), desc="examples", disable=None):
        requests = task.construct_requests(doc, task.fewshot_context(doc, num_fewshot=0))
        context, answer = requests[int(right.argmax())].args
        question, tokens = encode_pair(tokenizer, context, answer)
        if not tokens:
            raise UserError(
                f"The choice {answer!r} of the task {name} has no tokens in the model's tokenizer: "
                "change the choice."
            )
        yield Example(question, tokens, answer)
