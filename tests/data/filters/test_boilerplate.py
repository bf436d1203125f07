"""Lines that say nothing of a page's own."""

import pytest

from clp_jax.data.filters.boilerplate import Boilerplate
from clp_jax.data.samples import Samples

STORY = "Der Hund schläft.\n\n– Ja.\n\tx[0] = {1} und JavaScript ist eine Sprache [1]."


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


def test_a_paragraph_may_mention_cookies(follow, rule):
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


BOILERPLATE = {
    "de": [
        "Wir nutzen Cookies auf unserer Website. Mehr erfahren",
        "Um unsere Webseite optimal zu gestalten, verwenden wir Cookies.",
        "Durch die Nutzung dieser Website erklären Sie sich mit Cookies einverstanden.",
        "Um diese Seite zu nutzen, muss JavaScript aktiviert sein.",
        "Verlag Muster © 2019 - Alle Rechte vorbehalten",
        "Startseite » Kontakt » Auf Facebook teilen",
        "  Zum Newsletter anmelden",
    ],
    "en": [
        "By continuing to use this site, you agree to our use of cookies.",
        "You need to enable JavaScript to run this app.",
        "Copyright 2020 Foo Inc. All rights reserved.",
        "Privacy Policy | Terms of Use | Contact",
        "Subscribe to our newsletter",
    ],
    "es": ["Este sitio web utiliza cookies para todo.", "© 2020. Todos los derechos reservados."],
    "fr": ["En poursuivant votre navigation, vous acceptez les cookies.", "Tous droits réservés"],
    "it": ["Questo sito utilizza cookie.", "Informativa sulla privacy"],
    "nl": ["Deze website gebruikt cookies.", "Alle rechten voorbehouden"],
}
MENTIONS = {
    "de": [
        "Das Gericht entschied, dass die Verwendung von Cookies ohne Einwilligung unzulässig ist.",
        "Wir verwenden Cookies als Boden für die Torte.",
        "Alle Rechte vorbehalten bleiben dem Urheber auch nach der Übertragung.",
        "Er schrieb: „Alle Rechte vorbehalten“, und lachte.",
        "„Diese Seite verwendet Cookies“ steht heute überall.",
        "Der Newsletter lässt sich jederzeit abbestellen.",
        "Man kann im Browser JavaScript deaktivieren.",
        "Blindtexte beginnen mit Lorem ipsum.",
    ],
    "en": [
        "The court held that the terms and conditions were void.",
        "The recipe uses cookies instead of flour.",
        "We use cookies from the jar for the crust.",
        "They accept cookies from strangers.",
        "The privacy policy of the firm was changed in 2018.",
        "By using this site plan, the builders saved a year.",
    ],
    "es": ["El uso de cookies está regulado por la ley."],
    "fr": ["L'utilisation de cookies est réglementée.", "Tous droits réservés furent vendus."],
    "it": ["L'informativa sulla privacy fu contestata."],
    "nl": ["Zij gebruiken cookies bij de thee."],
}


@pytest.mark.parametrize("code", BOILERPLATE)
def test_a_page_is_about_itself_or_only_mentions_such_things(tmp_path, code):
    rule = Boilerplate(code, Samples(tmp_path, "boilerplate"))
    assert [line for line in BOILERPLATE[code] if not rule.is_boilerplate(line)] == []
    assert [line for line in MENTIONS[code] if rule.is_boilerplate(line)] == []


CODE = "def f(x):\n    if x:\n\treturn {\n\n        'a': x,\n    }  \n"


def test_what_stays_is_left_as_it_is(follow, rule):
    notice = "Diese Seite verwendet Cookies."
    assert follow(rule, CODE, f"  {STORY}\n", f"{notice}\n{CODE}")[0] == [
        CODE,
        f"  {STORY}\n",
        CODE.strip("\n"),
    ]


def test_paragraphs_without_spaces_are_not_endless_words(follow, rule):
    text = "日本語の段落には空白がない。" * 100
    assert follow(rule, text)[0] == [text]
