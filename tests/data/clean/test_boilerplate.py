"""Lines that say nothing of a page's own."""

import pytest

from clp_jax.data.clean.boilerplate import Boilerplate
from clp_jax.data.clean.phrases import _PHRASES
from clp_jax.data.samples import Samples

STORY = "Der Hund schläft.\n\n– Ja.\nx[0] = {1} und JavaScript ist eine Sprache [1]."


@pytest.fixture
def rule(tmp_path) -> Boilerplate:
    return Boilerplate("de", Samples(tmp_path, "boilerplate"))


@pytest.mark.parametrize(
    "line",
    [
        "Diese Webseite verwendet Cookies, um Ihnen das beste Erlebnis zu bieten.",
        "Bitte aktivieren Sie JavaScript in Ihrem Browser!",
        "© 2022 Muster GmbH. ALLE RECHTE VORBEHALTEN.",
        "Impressum | Zur Datenschutzerklärung",
        "We use cookies to improve this site.",
        "x" * 1001,
    ],
)
def test_lines_are_dropped_and_the_rest_stays(follow, rule, line):
    left, counts = follow(rule, f"{line}\n{STORY}", f"{STORY}\n{line}")
    assert left == [STORY, STORY]
    assert counts["lines" if " " in line else "line-filter-too_long_word"] == 2


def test_a_paragraph_may_speak_of_cookies(follow, rule):
    paragraph = "Der Einsatz von Cookies ist in der Europäischen Union geregelt. " * 5
    assert follow(rule, STORY, paragraph.strip())[0] == [STORY, paragraph.strip()]


def test_documents_of_nothing_else_are_dropped(follow, rule):
    left, counts = follow(rule, "Cookies akzeptieren\nCookie policy", "", "Lorem ipsum dolor sit.")
    assert left == []
    assert counts["dropped_nothing else"] == 2
    assert counts["dropped_lorem ipsum"] == 1


def test_a_language_has_its_own_phrases_and_the_english_ones(follow, tmp_path):
    lines = "Alle rechten voorbehouden\nAll rights reserved\nAlle Rechte vorbehalten\nText"
    rules = {code: Boilerplate(code, Samples(tmp_path, "b")) for code in ("nl", "sw", None)}
    assert follow(rules["nl"], lines)[0] == ["Alle Rechte vorbehalten\nText"]
    for code in ("sw", None):
        assert follow(rules[code], lines)[0] == [lines.replace("All rights reserved\n", "")]


def test_phrases_are_in_small_letters_and_none_makes_another_needless():
    for code, own in _PHRASES.items():
        english = () if code == "en" else _PHRASES["en"]
        for phrase in own:
            assert phrase == phrase.lower()
            others = [other for other in (*own, *english) if other is not phrase]
            assert not [other for other in others if other in phrase], phrase
