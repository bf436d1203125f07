from collections import Counter
from itertools import islice

import pytest

from clp_jax.data.mixture import Mixture

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


def test_a_checkpoint_of_today_finds_its_place_tomorrow():
    places = [Mixture([3, 2]).place(index) for index in range(5)]
    assert places == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1)]
