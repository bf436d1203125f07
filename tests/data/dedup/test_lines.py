import random
from collections import Counter
from functools import partial

import pytest

from clp_jax.data.dedup.lines import drop_lines
from clp_jax.files import read_json

NOTICE = "Diese Seite verwendet Cookies."


@pytest.fixture(autouse=True)
def few(monkeypatch) -> None:
    """Two documents are many."""
    monkeypatch.setattr("clp_jax.data.dedup.lines._FEWEST", 1)


@pytest.mark.usefixtures("buckets")
def test_lines_of_more_documents_than_the_limit_are_dropped(corpus, order):
    rng = random.Random(0)
    every = [f"Zeile Nummer {number}" for number in range(60)]
    weights = [1 / (1 + number) for number in range(60)]
    texts = [rng.choices(every, weights, k=rng.randint(1, 12)) for _ in range(120)]
    tasks = [texts[:40], [], texts[40:]]
    counts = Counter(line for text in texts for line in set(text))
    expected, first = {}, {line for line in every if counts[line] > 20}
    for rank, part in enumerate(tasks):
        for index, text in enumerate(part):
            rest = []
            for line in text:
                if counts[line] <= 20 or line in first:
                    rest.append(line)
                    first.discard(line)
            if rest:
                expected[f"{rank}/{index}"] = "\n".join(rest)
    assert 0 < len(expected) < len(texts)
    made = corpus([["\n".join(text) for text in part] for part in tasks])
    assert made.deduplicate(partial(drop_lines, 20.5 / 120), order) == expected
    assert made.counted()["lines"] + made.counted()["dropped"] > 0


def test_a_line_counts_once_per_document_and_white_space_around_it_does_not(corpus):
    texts = [f"Erstens\n  Text eins.\n{NOTICE}\r\n{NOTICE}", f"Text zwei.\n\n\t{NOTICE}  "]
    others = [f"Noch ein Text, Nummer {number}." for number in range(2)]
    assert list(corpus([texts + others]).deduplicate(partial(drop_lines, 0.5)).values()) == [
        *(texts + others)
    ]
    rest = [f"Erstens\n  Text eins.\n{NOTICE}\r", "Text zwei."]
    left = corpus([texts + others]).deduplicate(partial(drop_lines, 0.49))
    assert list(left.values()) == rest + others


def test_a_line_of_a_hundred_documents_stays_in_a_small_corpus(corpus, monkeypatch):
    monkeypatch.setattr("clp_jax.data.dedup.lines._FEWEST", 100)
    texts = [f"{NOTICE}\nText Nummer {number}" for number in range(101)]
    assert (
        list(corpus([texts[:100]]).deduplicate(partial(drop_lines, 0.01)).values()) == texts[:100]
    )
    left = [*corpus([texts[:50], texts[50:]]).deduplicate(partial(drop_lines, 0.01)).values()]
    assert left == [texts[0], *(text.partition("\n")[2] for text in texts[1:])]


def test_composed_letters_or_not_are_the_same_line(corpus):
    texts = ["Viele Grüße\nText eins.", "Viele Gru\u0308ße\nText zwei."]
    left = corpus([texts]).deduplicate(partial(drop_lines, 0.5))
    assert list(left.values()) == [texts[0], "Text zwei."]


def test_short_lines_stay(corpus):
    texts = [f"Ja.\nText Nummer {number}" for number in range(5)]
    assert list(corpus([texts]).deduplicate(partial(drop_lines, 0.1)).values()) == texts


def test_documents_that_hold_nothing_else_are_dropped(corpus):
    made = corpus([[f"{NOTICE}\nEin Text.", NOTICE], [f"\n{NOTICE}\n\n"]])
    assert made.deduplicate(partial(drop_lines, 0.5)) == {"0/0": f"{NOTICE}\nEin Text."}
    counted = made.counted()
    assert counted["dropped_only frequent lines"] == 2
    assert counted["lines"] == 2
    samples = read_json(made.place.samples / "lines" / "00001.json", list)
    assert [sample["reason"] for sample in samples] == ["only frequent lines"]
