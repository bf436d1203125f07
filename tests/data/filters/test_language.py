"""Language identification, offline."""

import socket

import pytest

from clp_jax.data.filters.language import Language, detect, languages
from clp_jax.data.samples import Samples

GERMAN = "Der Hund schläft auf dem Sofa, und die Katze sitzt vor der Tür und wartet."
ENGLISH = "The dog sleeps on the sofa, and the cat sits in front of the door and waits."


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (GERMAN, "de"),
        (GERMAN.upper(), "de"),
        (GERMAN.replace(" ", "\n"), "de"),
        (ENGLISH, "en"),
        ("Il cane dorme sul divano e il gatto aspetta davanti alla porta.", "it"),
    ],
)
def test_detects(text, code):
    found, score = detect(text)
    assert found == code
    assert 0.65 < score <= 1


@pytest.mark.parametrize("place", range(3))
def test_beginning_middle_and_end_of_a_long_text_are_read(place):
    parts = [GERMAN * 100] * 3
    code, score = detect("".join(parts))
    parts[place] = ENGLISH * 100
    assert code == "de"
    assert detect("".join(parts))[1] < score


def test_other_languages_are_dropped_by_name(follow, tmp_path):
    rule = Language("de", 0.65, Samples(tmp_path, "language"))
    left, counts = follow(rule, GERMAN, ENGLISH, "", "1 2 3")
    assert left == [GERMAN]
    assert counts["dropped_en"] == 1
    assert counts["dropped_unsure"] == 2


def test_knows_the_languages_that_it_distinguishes():
    assert {"de", "en", "hi", "sw", "zh"} <= languages()
    assert "german" not in languages()
