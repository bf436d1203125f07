import json
import random
import resource

import numpy as np
import pytest
import zstandard
from datatrove.utils.text import simplify_text

from clp_jax.data.dedup import near as module
from clp_jax.data.dedup.near import SignWords, drop_near
from clp_jax.errors import UserError


def words(rng: random.Random, size: int) -> list[str]:
    return ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(size)]


def edited(rng: random.Random, text: list[str], share: float) -> list[str]:
    return [word[::-1] + "x" if rng.random() < share else word for word in text]


def test_the_first_of_near_documents_stays(corpus, order):
    rng = random.Random(0)
    texts = [words(rng, 300) for _ in range(6)]
    copies = [edited(rng, text, 0.003) for text in texts for _ in range(3)]
    rng.shuffle(copies)
    tasks = [copies[:4], [], copies[4:5], [*texts, *copies[5:]]]
    made = corpus([[" ".join(text) for text in part] for part in tasks])
    kept = made.deduplicate(drop_near, order)
    first: dict[str, str] = {}
    for rank, part in enumerate(tasks):
        for index, text in enumerate(part):
            source = max(range(6), key=lambda n: sum(map(str.__eq__, texts[n], text)))
            first.setdefault(str(source), f"{rank}/{index}")
    assert list(kept) == sorted(first.values())
    assert made.counted()["dropped_copy"] == 24 - 6
    assert (made.place.samples / "near" / "00003.json").exists()


def test_nothing_is_dropped_where_nothing_is_near(corpus):
    rng = random.Random(0)
    texts = [" ".join(words(rng, 50)) for _ in range(8)]
    made = corpus([[], texts[:4], ["zu kurz", "zu kurz", ""], texts[4:]])
    assert list(made.deduplicate(drop_near).values()) == [
        *texts[:4],
        "zu kurz",
        "zu kurz",
        "",
        *texts[4:],
    ]


def test_a_long_chain_of_near_documents_is_one_cluster(corpus):
    rng = random.Random(0)
    text = words(rng, 200)
    texts = []
    for _ in range(400):
        text = [*text[1:], *words(rng, 1)]
        texts.append(" ".join(text))
    kept = corpus([texts[200:], texts[:200]]).deduplicate(drop_near)
    assert "0/0" in kept
    assert len(kept) <= 3


@pytest.mark.parametrize("size", [1, 7, 8, 100])
def test_a_long_document_is_signed_in_parts_with_the_same_result(tmp_path, monkeypatch, size):
    signer = SignWords(tmp_path)
    shingles = np.random.default_rng(size).integers(1 << 64, size=size, dtype=np.uint64)
    whole = signer.get_signature(shingles)
    monkeypatch.setattr(module, "_SHINGLES", 7)
    assert signer.get_signature(shingles) == whole


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
def test_hashes_agree_as_often_as_the_similarity(tmp_path, similarity):
    signer, rng, pairs = SignWords(tmp_path), np.random.default_rng(0), 200
    agreed = []
    for _ in range(pairs):
        both = rng.integers(1 << 64, size=1000, dtype=np.uint64)
        alone = 1000 - round(1000 * similarity)
        ours = signer.get_signature(both[alone // 2 :])
        theirs = signer.get_signature(np.delete(both, slice(alone // 2, alone)))
        agreed.append(np.mean(np.array(ours) == np.array(theirs)))
    deviation = np.sqrt(similarity * (1 - similarity) / 112)
    assert abs(np.mean(agreed) - similarity) < 4 * deviation / np.sqrt(pairs)
    assert np.std(agreed) == pytest.approx(deviation, rel=0.2)


def test_case_accents_digits_and_punctuation_do_not_count(tmp_path):
    signer = SignWords(tmp_path)
    plain = signer.get_shingles("am 12 mai kamen sieben aepfel ueber den fluss")
    assert len(plain) == 5
    same = "Am 34. Mai „kamen“ sieben aepfel, ueber dén Fluss!"
    np.testing.assert_array_equal(signer.get_shingles(same), plain)
    other = signer.get_shingles("mai am 12 kamen sieben aepfel ueber den fluss")
    assert not set(other[:3]) & set(plain)
    assert len(signer.get_shingles("nur vier kurze worte")) == 0


def test_too_few_allowed_files_are_reported(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    with pytest.raises(UserError, match="open files"):
        module._open_files(1000)


def shingles(text: str) -> set[tuple[str, ...]]:
    """Sequences of five words, as the signatures see them but cut at blanks."""
    simple = simplify_text(text).split()
    return {tuple(simple[i : i + 5]) for i in range(len(simple) - 4)}


def test_planted_copies_of_real_text_are_found_as_often_as_minhash_promises(corpus, shared_data):
    rng = random.Random(0)
    with zstandard.open(
        shared_data / "corpora/de/heldout.jsonl.zst", "rt", encoding="utf-8"
    ) as file:
        texts = [json.loads(line)["text"] for line in file]
    texts = [text for text in texts if len(text) > 800][:100]
    assert len(texts) == 100
    copies = [
        [" ".join(edited(rng, text.split(" "), share)) for text in texts]
        for share in (0.002, 0.01, 0.02, 0.2)
    ]
    made = corpus([texts, *copies])
    kept = made.deduplicate(drop_near)
    assert [id for id in kept if id.startswith("0/")] == [f"0/{index}" for index in range(100)]
    for rank, part in enumerate(copies, start=1):
        found = 100 - sum(id.startswith(f"{rank}/") for id in kept)
        pairs = [(shingles(text), shingles(copy)) for text, copy in zip(texts, part, strict=True)]
        similarities = np.array([len(a & b) / len(a | b) for a, b in pairs])
        chances = 1 - (1 - similarities**8) ** 14
        deviation = np.sqrt((chances * (1 - chances)).sum())
        assert abs(found - chances.sum()) <= 3 * deviation + 1
