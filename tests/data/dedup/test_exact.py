import random

import pytest

from clp_jax.data.dedup.exact import drop_copies
from clp_jax.files import read_json


@pytest.mark.usefixtures("buckets")
def test_the_first_of_equal_documents_stays(corpus, order):
    rng = random.Random(0)
    texts = [f"Text {rng.randrange(200)}" for _ in range(500)]
    tasks = [texts[:100], [], texts[100:103], texts[103:]]
    kept = corpus(tasks).deduplicate(drop_copies, order)
    first: dict[str, str] = {}
    for rank, part in enumerate(tasks):
        for index, text in enumerate(part):
            first.setdefault(text, f"{rank}/{index}")
    assert kept == {id: text for text, id in first.items()}


def test_only_white_space_around_the_text_may_differ(corpus):
    made = corpus([["Ein Satz."], [" Ein Satz.\n", "Ein  Satz.", "ein Satz.", ""], [""]])
    assert list(made.deduplicate(drop_copies)) == ["0/0", "1/1", "1/2", "1/3"]
    assert made.counted()["dropped_copy"] == 2


def test_composed_letters_or_not_are_the_same_text(corpus):
    made = corpus([["Grüße an alle."], ["Gru\u0308ße an alle."]])
    assert made.deduplicate(drop_copies) == {"0/0": "Grüße an alle."}


def test_a_few_copies_are_kept_as_samples(corpus):
    made = corpus([["Ein Satz."], ["Ein Satz."]])
    made.deduplicate(drop_copies)
    sample = {"id": "1/0", "reason": "copy", "text": "Ein Satz."}
    assert read_json(made.place.samples / "exact" / "00001.json", list) == [sample]
