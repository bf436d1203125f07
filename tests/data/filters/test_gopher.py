"""Gopher's rules: each can be broken, and good text of unusual form breaks none."""

import random

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import GopherRepetitionFilter

from clp_jax.data.filters.gopher import Quality, Repetition, repeated_share
from clp_jax.data.samples import Samples

PLAY = """FAUST: Wer bist du ...
MEPHISTOPHELES: Ein Teil von jener Kraft, die stets das Böse will ...
FAUST: Was ist mit diesem Rätselwort gemeint?
MEPHISTOPHELES: Ich bin der Geist, der stets verneint!
Und das mit Recht; denn alles, was entsteht,
Ist wert, daß es zugrunde geht."""
LAW = """§ 5 Vergütung
(1) Der Anspruch nach § 3 Abs. 1 Satz 2 Nr. 4 verjährt in drei Jahren.
(2) Die §§ 194 bis 218 des Bürgerlichen Gesetzbuchs bleiben im Übrigen unberührt.
(3) Wer vor dem 1. Januar 2003 Vergütung erhalten hat, behält sie nach § 7 Abs. 2."""
VERSE = """Wer reitet so spät durch Nacht und Wind?
Es ist der Vater mit seinem Kind;
Er hat den Knaben wohl in dem Arm,
Er faßt ihn sicher, er hält ihn warm."""
DIALOGUE = """- Jó napot! - mondta az öreg.
- Jó napot.
- Hová mész ilyen korán reggel, fiam?
- A folyóhoz.
- Egyedül?
- Egyedül, bátyám, mert a többiek még alszanak."""
ERRANDS = """- zwei Kilo Kartoffeln vom Markt
- Milch
- die Schuhe beim Schuster abholen
- den Brief an die Tante einwerfen"""
GOOD = pytest.mark.parametrize(
    "text",
    [PLAY, LAW, VERSE, DIALOGUE, ERRANDS],
    ids=["play", "law", "verse", "dialogue", "errands"],
)


@pytest.fixture
def quality(tmp_path) -> Quality:
    return Quality(Samples(tmp_path, "quality"))


@pytest.fixture
def repetition(tmp_path) -> Repetition:
    return Repetition(Samples(tmp_path, "repetition"))


@GOOD
def test_good_text_is_kept(follow, quality, repetition, text):
    assert follow(quality, text)[0] == [text]
    assert follow(repetition, text)[0] == [text]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no words"),
        (" \n ", "no words"),
        ("*** --- !!!", "no words"),
        ("12 3 4 56 7 8 9 a b", "short words"),
        ("Donaudampfschifffahrtsgesellschaft Rindfleischetikettierung", "long words"),
        ("# eins # zwei # drei", "number signs"),
        ("eins ... zwei ... drei", "ellipses"),
        ("- eins\n• zwei\n- drei", "bullet points"),
        (("Lesen Sie hier noch viel mehr ...\n" * 2) + "Nun ist Schluss damit", "unfinished lines"),
        ("1234 5678 Euro 4321 8765 Cent 1111 %", "symbols and numbers"),
    ],
)
def test_bad_quality(follow, quality, text, reason):
    left, counts = follow(quality, text)
    assert left == []
    assert counts[f"dropped_{reason}"] == 1


def sentence(number: int) -> str:
    return " ".join(f"wort{number}{letter}" for letter in "abcdefghijkl")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("\n\n".join([sentence(1)] * 3 + [sentence(2)]), "repeated paragraphs"),
        ("\n".join([sentence(1)] * 3 + [sentence(2)]), "repeated lines"),
        ("Ein Hund ging. Eine Maus kam. " + "Ein Hund " * 3, "one sequence of 2 words"),
        (f"{sentence(1)} {sentence(1)}", "repeated sequences of 5 words"),
    ],
)
def test_repetition(follow, repetition, text, reason):
    left, counts = follow(repetition, text)
    assert left == []
    assert counts[f"dropped_{reason}"] == 1


def test_long_words_may_come_twice(follow, repetition):
    text = "Abschlussprüferaufsichtsstelle beim Bundesamt für Wirtschaft. " * 2 + sentence(1)
    assert follow(repetition, text)[0] == [text]


def test_the_shortcut_changes_no_verdict(repetition):
    """Passages of many lengths are copied: some texts are told at once, some are near the limit."""
    rng = random.Random(0)
    told = []
    for _ in range(400):
        words = rng.choices([f"wort{i}" for i in range(rng.choice([20, 100, 2000]))], k=300)
        copied = rng.randrange(130)
        text = " ".join([*words, *words[:copied]])
        whole = GopherRepetitionFilter.filter(repetition, Document(text, "0"))
        assert (repetition.filter(Document(text, "0")) is True) == (whole is True)
        told.append((repeated_share(text.split(), len(text)) <= 0.2, whole is True))
    assert set(told) == {(True, True), (False, True), (False, False)}
