"""What is cut is compared with a search through all passages, kept in a set."""

import json
import random
from functools import partial

import pytest
import zstandard

from clp_jax.data.dedup import fingerprints, substrings
from clp_jax.data.dedup.fingerprints import read_between
from clp_jax.data.dedup.substrings import cut_passages, first_place
from clp_jax.files import read_json

from ...marks import slow

ALPHABETS = ["ab ", "abcdefghij ", "aäöü€𝄞 b"]


def random_text(rng: random.Random, letters: str, size: int) -> str:
    return "".join(rng.choices(letters, k=size))


def planted(seed: int) -> list[list[str]]:
    """Documents of a few tasks, made of a few passages, runs of a few letters, and other text."""
    rng = random.Random(seed)
    letters = ALPHABETS[seed % len(ALPHABETS)]
    passages = [random_text(rng, letters, rng.randint(5, 120)) for _ in range(4)]
    passages.append(random_text(rng, letters, rng.randint(1, 4)) * rng.randint(10, 60))
    return [
        [
            "".join(
                rng.choice([*passages, random_text(rng, letters, rng.randint(0, 80))])
                for _ in range(rng.randint(0, 5))
            )
            for _ in range(rng.randint(0, 4))
        ]
        for _ in range(rng.randint(1, 5))
    ]


def search(tasks: list[list[str]], length: int) -> list[set[int]]:
    """Bytes of the text of each task that lie in a passage which stands in an earlier place."""
    seen: set[bytes] = set()
    found = []
    for texts in tasks:
        covered, offset = set(), 0
        for text in texts:
            data = text.encode()
            for start in range(len(data) - length + 1):
                passage = data[start : start + length]
                if passage in seen:
                    covered.update(range(offset + start, offset + start + length))
                seen.add(passage)
            offset += len(data)
        found.append(covered)
    return found


def cut_bytes(made, rank: int) -> set[int]:
    """The bytes that the stages have found, to be compared with those of `search`."""
    places = first_place(rank), first_place(rank + 1)
    cuts = read_between(made.filter.found, made.filter.files, "start", *places)
    pairs = ((int(start) - places[0], int(end) - places[0]) for start, end in cuts)
    return {byte for pair in pairs for byte in range(*pair)}


@pytest.fixture(params=[(1, 50), (100, 1 << 22)], ids=["in many parts", "at once"])
def parts(request, monkeypatch) -> None:
    """How many fingerprints, and how much text, are compared at once."""
    tasks, budget = request.param
    monkeypatch.setattr(fingerprints, "_TASKS_A_BUCKET", tasks)
    monkeypatch.setattr(substrings, "_BUDGET", budget)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("length", [slow(2), 7, slow(30), 101])
def test_the_passages_of_a_full_search_are_found(corpus, order, length):
    cut = 0
    for seed in range(4):
        tasks = planted(seed)
        made = corpus(tasks)
        made.deduplicate(partial(cut_passages, length), order)
        for rank, covered in enumerate(search(tasks, length)):
            assert cut_bytes(made, rank) == covered
            cut += len(covered)
    assert cut > 500


def test_quotations_in_real_text_are_found_and_nothing_else(corpus, shared_data):
    rng = random.Random(0)
    source = shared_data / "corpora/de/heldout.jsonl.zst"
    with zstandard.open(source, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file][:60]
    quotations = [rng.choice(texts[:30])[200:500] for _ in range(30)]
    quoting = [
        f"{text[: len(text) // 2]} {quotation} {text[len(text) // 2 :]}"
        for text, quotation in zip(texts[30:], quotations, strict=True)
    ]
    tasks = [quoting[:10], texts[:30], quoting[10:]]
    made = corpus(tasks)
    kept = "\n".join(made.deduplicate(partial(cut_passages, 150)).values())
    assert all(kept.count(quotation[60:-60]) == 1 for quotation in quotations)
    assert [cut_bytes(made, rank) for rank in range(3)] == search(tasks, 150)


def words(rng: random.Random, size: int) -> str:
    return " ".join(random_text(rng, "abcdeäß€", rng.randint(1, 9)) for _ in range(size))


@pytest.mark.usefixtures("buckets")
def test_repeated_passages_stay_once(corpus, order):
    length = 200
    rng = random.Random(0)
    passages = [words(rng, 80) for _ in range(5)]
    tasks = [
        [
            " ".join([words(rng, 60), rng.choice(passages), words(rng, 60), rng.choice(passages)])
            for _ in range(6)
        ]
        for _ in range(3)
    ]
    made = corpus(tasks)
    kept = made.deduplicate(partial(cut_passages, length), order)
    assert len(kept) == 18
    everything = "\n".join(kept.values())
    for passage in passages:
        assert everything.count(passage) == 1
    longest = max(len(word.encode()) for word in everything.split())
    assert not any(search([everything.split("\n")], length + 2 * longest))
    originals = [text for texts in tasks for text in texts]
    for text, original in zip(kept.values(), originals, strict=True):
        assert all(line in original for line in text.split("\n"))
        assert set(text.split()) <= set(original.split())
    assert made.counted()["passages"] == 36 - 5


def test_cuts_keep_words_and_characters_whole(corpus):
    passage = "Die Würde des Menschen ist unantastbar. Sie zu achten ist Verpflichtung."
    head, tail = (words(random.Random(seed), 40) for seed in range(2))
    texts = [f"x{passage}y", f"{head} Vorwort{passage}Ende {tail}"]
    made = corpus([texts[:1], texts[1:]])
    kept = made.deduplicate(partial(cut_passages, 60))
    assert kept["0/0"] == texts[0]
    assert kept["1/0"] == f"{head} VorwortDie\nVerpflichtung.Ende {tail}"


def test_text_without_spaces_is_cut_between_characters(corpus):
    rng = random.Random(0)
    head, passage, tail = (random_text(rng, "漢字文書全体", 100) for _ in range(3))
    kept = corpus([[passage, head + passage + tail]]).deduplicate(partial(cut_passages, 100))
    assert kept["0/1"].split("\n")[0].startswith(head[:99])
    assert kept["0/1"].split("\n")[1].endswith(tail[1:])
    assert passage[1:-1] not in kept["0/1"]


def test_documents_of_which_too_little_stays_are_dropped(corpus):
    passage = words(random.Random(0), 100)
    made = corpus([["Kurz", passage, "Kurz"], [f"Titel\n{passage}\nEnde", "Kurz"]])
    kept = made.deduplicate(partial(cut_passages, 100))
    assert kept == {"0/0": "Kurz", "0/1": passage, "0/2": "Kurz", "1/1": "Kurz"}
    assert made.counted()["dropped_only passages seen before"] == 1
    assert made.counted()["passages"] == 1


def test_copies_that_follow_one_another_are_all_dropped(corpus):
    texts = [words(random.Random(seed), 100) for seed in range(3)]
    kept = corpus([texts, texts]).deduplicate(partial(cut_passages, 100))
    assert list(kept.values()) == texts


def test_cut_passages_are_kept_as_samples(corpus):
    passage, rest = words(random.Random(0), 100), words(random.Random(1), 100)
    made = corpus([[passage, f"{rest}\n{passage}"]])
    assert made.deduplicate(partial(cut_passages, 100))["0/1"] == rest
    [sample] = read_json(made.place.samples / "substrings" / "00000.json", list)
    assert (sample["id"], sample["reason"]) == ("0/1", "passage seen before")
    assert passage.startswith(sample["text"].strip())
