import random
from collections import Counter
from functools import partial

import pytest

from clp_jax.data.deduplicate.lines import drop_lines
from clp_jax.files import read_json

NOTICE = "Diese Seite verwendet Cookies."


@pytest.mark.usefixtures("buckets")
def test_lines_of_more_documents_than_the_limit_are_dropped(corpus, order):
    rng = random.Random(0)
    every = [f"Zeile Nummer {number}" for number in range(60)]
    weights = [1 / (1 + number) for number in range(60)]
    texts = [rng.choices(every, weights, k=rng.randint(1, 12)) for _ in range(120)]
    tasks = [texts[:40], [], texts[40:]]
    counts = Counter(line for text in texts for line in set(text))
    expected = {}
    for rank, part in enumerate(tasks):
        for index, text in enumerate(part):
            if rest := [line for line in text if counts[line] <= 20]:
                expected[f"{rank}/{index}"] = "\n".join(rest)
    assert 0 < len(expected) < len(texts)
    made = corpus([["\n".join(text) for text in part] for part in tasks])
    assert made.deduplicate(partial(drop_lines, 20), order) == expected
    assert made.counted()["lines"] + made.counted()["dropped"] > 0


def test_a_line_counts_once_for_a_document_and_blanks_around_it_do_not(corpus):
    texts = [f"Erstens\nText eins.\n{NOTICE}\r\n{NOTICE}", f"Text zwei.\n\n\t{NOTICE}  "]
    assert list(corpus([texts]).deduplicate(partial(drop_lines, 2)).values()) == texts
    rest = ["Erstens\nText eins.", "Text zwei."]
    assert list(corpus([texts]).deduplicate(partial(drop_lines, 1)).values()) == rest


def test_short_lines_stay(corpus):
    texts = [f"Ja.\nText Nummer {number}" for number in range(5)]
    assert list(corpus([texts]).deduplicate(partial(drop_lines, 1)).values()) == texts


def test_documents_that_hold_nothing_else_are_dropped(corpus):
    made = corpus([[NOTICE, f"{NOTICE}\nEin Text."], [f"\n{NOTICE}\n\n"]])
    assert made.deduplicate(partial(drop_lines, 2)) == {"0/1": "Ein Text."}
    counted = made.counted()
    assert counted["dropped_only frequent lines"] == 2
    assert counted["lines"] == 3
    samples = read_json(made.place.samples / "lines" / "00000.json")
    assert {"id": "0/1", "reason": "frequent lines", "text": NOTICE} in samples
