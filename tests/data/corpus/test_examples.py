import numpy as np
import pytest

from clp_jax.data.corpus.batches import TrainingBatches
from clp_jax.data.corpus.examples import Example, write_examples
from clp_jax.data.corpus.store import ANSWERS, Corpus
from clp_jax.errors import UserError
from clp_jax.tokenizer import Tokenizer

EXAMPLES = [
    Example([5, 6, 7], [8], " Ja"),
    Example([9], [10, 11], " Nein"),
    Example([12, 13, 14, 15, 16], [17, 18], " Nein"),
]


@pytest.fixture
def folder(tmp_path, tokenizer):
    write_examples(EXAMPLES, Tokenizer.of(tokenizer), tmp_path / "examples")
    return tmp_path / "examples"


def test_each_example_is_a_sequence_of_which_the_answer_is_predicted(folder):
    corpus = Corpus.open(folder)
    assert (corpus.documents, corpus.words, corpus.bytes, len(corpus)) == (3, 3, 13, 14)
    assert corpus.windows(6) == corpus.windows(2) == 3
    for index, example in enumerate(EXAMPLES):
        tokens, mask = corpus.window(index, 6)
        both = [*example.question, *example.answer]
        assert tokens.tolist() == both + [0] * (7 - len(both))
        assert tokens[1:][mask].tolist() == example.answer
    tokens, mask = corpus.window(2, 4)
    assert (tokens.tolist(), mask.tolist()) == ([14, 15, 16, 17, 18], [False, False, True, True])
    tokens, mask = corpus.window(2, 1)
    assert (tokens.tolist(), mask.tolist()) == ([17, 18], [True]), "an answer longer than that"


def test_batches_draw_every_example_once_an_epoch(folder):
    batches = TrainingBatches([Corpus.open(folder)], sequence_length=6, batch_size=3, seed=0)
    first = next(batches.starting_at())
    answers = [
        row[mask].tolist() for row, mask in zip(first["tokens"][:, 1:], first["mask"], strict=True)
    ]
    assert sorted(answers) == sorted(example.answer for example in EXAMPLES)


def test_the_same_examples_stay_and_others_are_refused(folder, tokenizer):
    tokenizer = Tokenizer.of(tokenizer)
    write_examples(EXAMPLES, tokenizer, folder)
    moved = [Example([5, 6], [7, 8], " Ja"), *EXAMPLES[1:]]
    with pytest.raises(UserError, match="has other examples than those of this task"):
        write_examples(moved, tokenizer, folder)


@pytest.mark.parametrize("places", [None, np.zeros((2, 3), np.int64), np.array([[0, 3, 99]] * 3)])
def test_damaged_places_are_refused(folder, places):
    (folder / ANSWERS).unlink()
    if places is not None:
        np.save(folder / ANSWERS, places)
    with pytest.raises(UserError, match=r"answers\.npy is missing or damaged: copy it again"):
        Corpus.open(folder)
