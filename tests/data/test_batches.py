from itertools import islice

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from clp_jax.data.batches import Batch, TrainingBatches
from clp_jax.data.store import Corpus
from clp_jax.errors import UserError

LENGTH = 5


@pytest.fixture(scope="module")
def corpus(tokenizer: PreTrainedTokenizerFast) -> Corpus:
    return Corpus.from_documents([f"Satz Nummer {i}" for i in range(30)], tokenizer)


def make(corpus: Corpus, **changes: int) -> TrainingBatches:
    return TrainingBatches(
        [corpus], **{"sequence_length": LENGTH, "batch_size": 8, "seed": 3} | changes
    )


def take(batches: TrainingBatches, count: int, position: int = 0) -> list[Batch]:
    return list(islice(batches.starting_at(position), count))


def rows(batches: list[Batch]) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    return [
        (tuple(tokens.tolist()), tuple(mask.tolist()))
        for batch in batches
        for tokens, mask in zip(batch["tokens"], batch["mask"], strict=True)
    ]


def windows(corpus: Corpus) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    pairs = [corpus.window(i, LENGTH) for i in range(corpus.windows(LENGTH))]
    return [(tuple(tokens.tolist()), tuple(mask.tolist())) for tokens, mask in pairs]


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["tokens"], other["tokens"])
        np.testing.assert_array_equal(one["mask"], other["mask"])


def test_batches_have_their_shapes_and_types(corpus: Corpus):
    (batch,) = take(make(corpus), 1)
    assert batch["tokens"].shape == (8, LENGTH + 1)
    assert batch["tokens"].dtype == np.int32
    assert batch["mask"].shape == (8, LENGTH)
    assert batch["mask"].dtype == np.bool_


def test_every_epoch_holds_every_window_once_in_another_order(corpus: Corpus):
    count = corpus.windows(LENGTH)
    sequences = rows(take(make(corpus), -(-3 * count // 8)))
    epochs = [sequences[i * count : (i + 1) * count] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(windows(corpus))
    assert windows(corpus) not in epochs
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_last_window_is_kept_and_masked(corpus: Corpus):
    batches = take(make(corpus), -(-corpus.windows(LENGTH) // 8))
    targets = sum(batch["mask"].sum() for batch in batches)
    beyond = len(rows(batches)) - corpus.windows(LENGTH)
    assert (len(corpus) - 1) % LENGTH
    assert len(corpus) - 1 <= targets <= len(corpus) - 1 + beyond * LENGTH


def test_the_order_depends_on_the_seed_alone(corpus: Corpus):
    assert_equal(take(make(corpus), 20), take(make(corpus), 20))
    assert rows(take(make(corpus), 3)) != rows(take(make(corpus, seed=4), 3))
    assert rows(take(make(corpus, batch_size=6), 4)) == rows(take(make(corpus), 3))


def test_neighbouring_seeds_share_no_epoch(corpus: Corpus):
    count = corpus.windows(LENGTH)
    later = rows(take(make(corpus, batch_size=count), 2))[count:]
    assert rows(take(make(corpus, batch_size=count, seed=4), 1)) != later


def test_seeds_may_be_negative(corpus: Corpus):
    assert rows(take(make(corpus, seed=-1), 3)) != rows(take(make(corpus, seed=1), 3))


@pytest.mark.parametrize("position", [0, 8, 17, 8 * 29, 10**9 + 3])
def test_any_position_continues_the_same_sequence(corpus: Corpus, position: int):
    start = position - position % 8 - 8 * min(position // 8, 5)
    through = rows(take(make(corpus), 12, start))
    skipped = position - start
    assert rows(take(make(corpus), 5, position)) == through[skipped : skipped + 40]


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batches(corpus: Corpus, processes: int):
    whole = take(make(corpus), 20, position=24)
    parts = [
        take(make(corpus, process_index=index, process_count=processes), 20, position=24)
        for index in range(processes)
    ]
    joined = [
        Batch(
            tokens=np.concatenate([part["tokens"] for part in batch]),
            mask=np.concatenate([part["mask"] for part in batch]),
        )
        for batch in zip(*parts, strict=True)
    ]
    assert_equal(joined, whole)


def test_a_corpus_shorter_than_a_sequence_is_one_masked_window(tokenizer: PreTrainedTokenizerFast):
    corpus = Corpus.from_documents(["a"], tokenizer)
    (batch,) = take(make(corpus, sequence_length=64, batch_size=2), 1)
    assert batch["mask"].sum(axis=1).tolist() == [2, 2]


def test_the_order_of_a_run_survives_new_versions_of_the_libraries(corpus: Corpus):
    """A checkpoint of today must find its place tomorrow: the shuffle is part of the format."""
    batches = make(corpus, batch_size=1)
    place = {window: number for number, window in enumerate(windows(corpus))}
    order = [place[row] for row in rows(take(batches, 8))]
    assert order == [78, 66, 69, 35, 41, 73, 60, 30]


def test_the_state_leads_back_to_the_position(corpus: Corpus):
    state = make(corpus).state(48)
    assert make(corpus, process_index=1, process_count=2).position(state) == 48


@pytest.mark.parametrize(
    ("change", "key"), [({"seed": 4}, "seed"), ({"sequence_length": 6}, "sequence_length")]
)
def test_the_state_of_another_run_is_refused(corpus: Corpus, change: dict[str, int], key: str):
    with pytest.raises(UserError, match=f"made with {key} .* this run has"):
        make(corpus).position(make(corpus, **change).state(48))


def test_the_state_of_another_corpus_is_refused(corpus: Corpus, tokenizer: PreTrainedTokenizerFast):
    other = Corpus.from_documents(["etwas anderes"], tokenizer)
    with pytest.raises(UserError, match="made with corpus"):
        make(corpus).position(make(other).state(0))


def test_batches_that_do_not_divide_are_refused(corpus: Corpus):
    with pytest.raises(UserError, match=r"8 sequences .* 3 processes"):
        make(corpus, process_count=3)
