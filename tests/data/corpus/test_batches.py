import json
from collections import Counter
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from clp_jax.data.corpus.batches import READ_AHEAD, Batch, Mixture, TrainingBatches
from clp_jax.data.corpus.store import Corpus
from clp_jax.errors import UserError

LENGTH = 5


@pytest.fixture(scope="module")
def corpus(tokenizer: PreTrainedTokenizerFast) -> Corpus:
    return Corpus.from_documents([f"Satz Nummer {i}" for i in range(30)], tokenizer)


@pytest.fixture(scope="module")
def other(tokenizer: PreTrainedTokenizerFast) -> Corpus:
    return Corpus.from_documents([f"Etwas anderes, das {i}." for i in range(12)], tokenizer)


def make(*corpora: Corpus, **changes: Any) -> TrainingBatches:
    return TrainingBatches(
        corpora, **{"sequence_length": LENGTH, "batch_size": 8, "seed": 3} | changes
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


def join(parts: list[list[Batch]]) -> list[Batch]:
    """The batches of all processes, of which each has some of the rows."""
    return [
        Batch(
            tokens=np.concatenate([part["tokens"] for part in batch]),
            mask=np.concatenate([part["mask"] for part in batch]),
        )
        for batch in zip(*parts, strict=True)
    ]


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


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batches(
    corpus: Corpus, other: Corpus, mixed: bool, processes: int
):
    corpora = (corpus, other) if mixed else (corpus,)
    parts = [
        take(make(*corpora, rows=part), 20, position=24)
        for part in np.split(np.arange(8), processes)
    ]
    assert_equal(join(parts), take(make(*corpora), 20, position=24))


def test_a_mixture_resumes_with_another_number_of_processes(corpus: Corpus, other: Corpus):
    def run(processes: int, batches: int, state: dict[str, Any] | None) -> list[Batch]:
        of_processes = [
            make(corpus, other, weights=[1, 2.5], rows=part)
            for part in np.split(np.arange(8), processes)
        ]
        return join(
            [take(one, batches, one.position(state) if state else 0) for one in of_processes]
        )

    state = json.loads(json.dumps(make(corpus, other, weights=[1, 2.5]).state(7 * 8)))
    resumed = run(4, 7, None) + run(2, 9, state)
    assert_equal(resumed, run(1, 16, None))


@pytest.mark.parametrize("position", [0, 10**12])
def test_only_the_windows_of_the_next_batches_are_read(
    corpus: Corpus, other: Corpus, position: int, monkeypatch: pytest.MonkeyPatch
):
    read: list[int] = []
    window = Corpus.window

    def counting(self: Corpus, index: int, length: int) -> Any:
        read.append(index)
        return window(self, index, length)

    batches = make(corpus, other)
    monkeypatch.setattr(Corpus, "window", counting)
    following = batches.starting_at(position)
    next(following)
    assert len(read) <= (1 + READ_AHEAD.prefetch_buffer_size + READ_AHEAD.num_threads) * 8


def test_a_mixture_reshuffles_each_corpus_in_each_of_its_epochs(corpus: Corpus, other: Corpus):
    sequences = rows(take(make(corpus, other, weights=[1, 3]), 60))
    for one, share in ((corpus, 0.25), (other, 0.75)):
        known = windows(one)
        own = [row for row in sequences if row in known]
        assert abs(len(own) - share * len(sequences)) <= 1
        count = one.windows(LENGTH)
        epochs = [own[i : i + count] for i in range(0, len(own) - count + 1, count)]
        assert epochs
        assert all(sorted(epoch) == sorted(known) for epoch in epochs)
        assert all(one != other for one, other in pairwise([known, *epochs]))


def test_without_weights_every_window_comes_once_before_any_comes_again(
    corpus: Corpus, other: Corpus
):
    both = windows(corpus) + windows(other)
    sequences = rows(take(make(corpus, other, batch_size=len(both)), 2))
    assert sorted(sequences[: len(both)]) == sorted(sequences[len(both) :]) == sorted(both)
    assert make(corpus, other).epochs(len(both)) == [1.0, 1.0]


def test_shares_and_epochs_are_those_of_the_sequences(corpus: Corpus, other: Corpus):
    batches = make(corpus, other, weights=[6, 2])
    known = windows(corpus)
    own = [row for row in rows(take(batches, 100)) if row in known]
    assert batches.shares() == [0.75, 0.25] == [len(own) / 800, 1 - len(own) / 800]
    expected = [600 / corpus.windows(LENGTH), 200 / other.windows(LENGTH)]
    assert batches.epochs(800) == expected


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


def test_the_state_restores_the_position(corpus: Corpus):
    state = make(corpus).state(48)
    assert make(corpus, rows=np.arange(4, 8)).position(state) == 48


@pytest.mark.parametrize(
    ("change", "key"), [({"seed": 4}, "seed"), ({"sequence_length": 6}, "sequence_length")]
)
def test_the_state_of_another_run_is_refused(corpus: Corpus, change: dict[str, int], key: str):
    with pytest.raises(UserError, match=f"checkpoint has {key} .* this run has"):
        make(corpus).position(make(corpus, **change).state(48))


def test_the_state_of_other_corpora_or_weights_is_refused(corpus: Corpus, other: Corpus):
    made = {
        "alone": make(corpus),
        "other": make(other),
        "by size": make(corpus, other),
        "turned": make(other, corpus),
        "weighted": make(corpus, other, weights=[1, 2]),
    }
    for name, batches in made.items():
        for another in made.keys() - {name}:
            with pytest.raises(UserError, match=r"checkpoint has corpus .* this run has"):
                batches.position(made[another].state(0))


def test_the_scale_of_the_weights_does_not_matter(corpus: Corpus, other: Corpus):
    thirds = make(corpus, other, weights=[1, 2])
    assert make(corpus, other, weights=[0.5, 1.0]).position(thirds.state(48)) == 48


WEIGHTS = [[1.0], [0.7, 0.3], [5, 1, 3], [1, 1_000_000], [0.1, 0.25, 0.05, 0.6], [997, 1009, 13]]
FAR = 10**12


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ([0.7, 0.3], [7, 3]),
        ([6, 4.0], [3, 2]),
        ([1e-3, 1], [1, 1000]),
        ([12345678901, 2 * 12345678901], [1, 2]),
        ([42], [1]),
    ],
)
def test_weights_are_taken_as_they_are_written(weights: list[float], parts: list[int]):
    assert Mixture(weights).parts == parts


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("start", [0, FAR])
def test_each_corpus_hands_out_its_sequences_one_after_another(weights: list[float], start: int):
    mixture = Mixture(weights)
    following = mixture.counts(start)
    assert sum(following) == start
    for index in range(start, start + 3000):
        corpus, place = mixture.place(index)
        assert place == following[corpus]
        following[corpus] += 1
    assert mixture.counts(start + 3000) == following


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("start", [0, 1, FAR])
def test_every_stretch_has_the_shares(weights: list[float], start: int):
    mixture = Mixture(weights)
    before = mixture.counts(start)
    for length in (1, 8, 100, 12_345):
        counts = zip(before, mixture.counts(start + length), weights, strict=True)
        for earlier, later, weight in counts:
            share = length * weight / sum(weights)
            assert abs(later - earlier - share) <= len(weights)


def test_after_the_sum_of_the_parts_each_has_given_its_part():
    places = (Mixture([78, 5, 31]).place(index) for index in range(10 * 114))
    for _ in range(10):
        assert Counter(corpus for corpus, _ in islice(places, 114)) == {0: 78, 1: 5, 2: 31}


def test_a_stored_position_is_found_by_later_versions():
    places = [Mixture([3, 2]).place(index) for index in range(5)]
    assert places == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1)]
