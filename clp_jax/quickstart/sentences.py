"""Plain English and German texts about one small world, made from a seed and nothing else.

The words (lexicon.py) and the sentence patterns (patterns.py) have both languages side by side:
names, numbers and loanwords are shared. The grammar here puts words into the forms that the slots
of a pattern ask for: ``{x[the acc]}`` is the thing x with its article, as accusative object.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

from clp_jax.quickstart import lexicon, patterns

Language = Literal["en", "de"]
Word = dict[str, Any]
"""A word in both languages, ``{"en": ..., "de": ...}``: plain text, or a table of its forms."""


def documents(language: Language, seed: int) -> Iterator[str]:
    """Endless short texts: stories, news and letters of six to eleven sentence patterns.

    Args:
        language: ``"en"`` or ``"de"``; the same seed tells the same texts in both.
        seed: another seed gives other texts, for instance held-out ones.
    """
    rng = random.Random(seed)
    while True:
        openings, middles, endings = rng.choice(patterns.KINDS)
        body = rng.sample(middles, rng.randint(4, 9))
        female, topic = rng.random() < 0.5, rng.choice(_TOPICS)
        scene = _draw_scene(rng, female)
        sentences = []
        for pattern in (rng.choice(openings), *body, rng.choice(endings)):
            words = _draw_words(rng, female, topic) | scene
            slots = {slot: word[language] for slot, word in words.items()}
            sentences.append(_capitalise(pattern[language].format(**slots)))
        yield " ".join(sentences)


def _capitalise(text: str) -> str:
    """Sentences and quotations begin with a capital letter."""
    return re.sub(r"(^|[.?!] |\n|„|“)([a-zäöü])", lambda m: m[1] + m[2].upper(), text)


def _draw_scene(rng: random.Random, female: bool) -> dict[str, Word]:
    """What stays the same in one text: two people (``a`` is she or he), two towns, a profession."""
    a = rng.choice(lexicon.WOMEN if female else lexicon.MEN)
    c, o = rng.sample(lexicon.CITIES, 2)
    b_female = rng.random() < 0.5
    b = rng.choice([name for name in (lexicon.WOMEN if b_female else lexicon.MEN) if name != a])
    return {
        "a": _plain([a, a]),
        "b": _plain([b, b]),
        "A": _pronouns(female),
        "B": _pronouns(b_female),
        "c": _plain(c),
        "o": _plain(o),
        "j": _phrase(rng.choice(_JOBS[female]), rng.choice(lexicon.JOB_ADJECTIVES), female),
    }


def _draw_words(rng: random.Random, female: bool, name: str) -> dict[str, Word]:
    """What is new in each sentence of a text on the topic ``name``."""
    topic, place = lexicon.TOPICS[name], lexicon.TOPICS["place"]
    things = rng.sample(_NOUNS[name], 2)
    x, y = (_phrase(noun, rng.choice(topic["adjectives"]), female) for noun in things)
    v, u = (_verb(verb) for verb in rng.sample(topic["verbs"], 2))
    somebody = rng.choice(_JOBS[rng.random() < 0.5])
    n, n2 = rng.randint(20, 99), rng.randint(20, 99)
    day, month, year = rng.randint(1, 28), rng.choice(lexicon.MONTHS), rng.randint(1950, 1999)
    price = f"{rng.randint(1, 200)},{rng.choice(('50', '20', '99', '95'))}"
    many = f"{rng.randint(1, 950)}.{rng.randint(0, 999):03}"
    return {
        "x": x, "y": y, "v": v, "u": u,
        "i": _adjective(rng.choice(topic["adjectives"])),
        "p": _phrase(rng.choice(_NOUNS["place"]), rng.choice(place["adjectives"]), False),
        "g": _verb(rng.choice(place["verbs"])),
        "k": _phrase(somebody, rng.choice(lexicon.JOB_ADJECTIVES), False),
        "f": _verb(rng.choice(lexicon.JOB_VERBS)),
        "h": _adjective(rng.choice(lexicon.JOB_ADJECTIVES)),
        "s": _titled(rng.choice(lexicon.SURNAMES), rng.random() < 0.5),
        "n": _plain([n, n]), "n2": _plain([n2, n2]), "sum": _plain([n + n2, n + n2]),
        "count": _plain(rng.choice(lexicon.NUMBERS)),
        "price": _plain([price.replace(",", "."), price]),
        "many": _plain([many.replace(".", ","), many]),
        "time": _plain([f"{rng.randint(6, 22)}:{rng.choice(('00', '15', '30', '45'))}"] * 2),
        "date": _plain([f"{day} {month[0]} {year}", f"{day}. {month[1]} {year}"]),
        "year": _plain([year, year]), "month": _plain(month),
        "weekday": _plain(rng.choice(lexicon.WEEKDAYS)),
        "weather": _plain(rng.choice(lexicon.WEATHER)),
        "beside": _plain(rng.choice(lexicon.BESIDE)),
    }  # fmt: skip


# Words in their forms. Endings stand in the order masculine, feminine, neuter.

_THE = {
    "nom": ["der", "die", "das"],
    "acc": ["den", "die", "das"],
    "dat": ["dem", "der", "dem"],
    "gen": ["des", "der", "des"],
}
_AFTER_THE = {
    "nom": ["e", "e", "e"],
    "acc": ["en", "e", "e"],
    "dat": ["en", "en", "en"],
    "gen": ["en", "en", "en"],
}
_EIN = {"nom": ["", "e", ""], "acc": ["en", "e", ""], "dat": ["em", "er", "em"]}
_AFTER_EIN = {"nom": ["er", "e", "es"], "acc": ["en", "e", "es"], "dat": ["en", "en", "en"]}
_IT = {"nom": ["er", "sie", "es"], "acc": ["ihn", "sie", "es"]}


def _plain(forms: Any) -> Word:
    return {"en": forms[0], "de": forms[1]}


def _pronouns(female: bool) -> Word:
    if female:
        return {
            "en": {"he": "she"},
            "de": {"he": "sie", "dear": "liebe"},
        }
    return {
        "en": {"he": "he"},
        "de": {"he": "er", "dear": "lieber"},
    }


def _titled(name: str, female: bool) -> Word:
    english, german, accusative = ("Mrs", "Frau", "Frau") if female else ("Mr", "Herr", "Herrn")
    return {
        "en": {"nom": f"{english} {name}"},
        "de": {"nom": f"{german} {name}", "acc": f"{accusative} {name}"},
    }


def _adjective(name: str) -> Word:
    english, english_more, german, german_more = lexicon.ADJECTIVES[name]
    return {
        "en": {"plain": english, "more": english_more},
        "de": {"plain": german, "more": german_more},
    }


@cache
def _verb(name: str) -> Word:
    base, past, participle, infinitive, german_now, german_past, german_done = lexicon.VERBS[name]
    first, space, rest = base.partition(" ")
    prefix, _, stem = infinitive.rpartition("-")
    return {
        "en": {
            "base": base,
            "now": first + ("es" if first.endswith(("s", "sh", "ch")) else "s") + space + rest,
            "past": past,
            "done": participle,
        },
        "de": {
            "base": prefix + stem,
            "to": f"{prefix}zu{stem}" if prefix else f"zu {stem}",
            "now": german_now,
            "past": german_past,
            "pasts": german_past + ("n" if german_past.endswith("e") else "en"),
            "end": prefix + german_past,
            "done": prefix + german_done,
            "off": f" {prefix}" if prefix else "",
        },
    }


@cache
def _phrase(noun: tuple[str, ...], adjective: str, hers: bool) -> Word:
    """All forms of an adjective and a noun, ``hers`` or his in the form ``own``."""
    english, english_plural, german, gender, german_plural = noun
    described = f"{adjective} {english}"
    forms = {
        "noun": english,
        "it": "it",
        "a": f"{'an' if described[0] in 'aeiou' else 'a'} {described}",
        "own": f"{'her' if hers else 'his'} {described}",
        "some": f"{adjective} {english_plural}",
        "in": f"in the {described}",
        "to": f"to the {described}",
    } | {determiner: f"{determiner} {described}" for determiner in ("the", "my", "their")}

    column = "mfn".index(gender[0])
    plain = lexicon.ADJECTIVES[adjective][2]
    stem = lexicon.STEMS.get(plain, plain)
    german_forms = {"name": german, "some nom": f"{stem}e {german_plural}"}
    german_forms["some acc"] = german_forms["some nom"]
    for case in _THE:
        inflected = _inflect(german, gender, german_plural, case)
        the, ending = _THE[case][column], _AFTER_THE[case][column]
        german_forms[f"which {case}"] = the
        german_forms[f"bare {case}"] = f"{the} {inflected}"
        german_forms[f"the {case}"] = f"{the} {stem}{ending} {inflected}"
    for case in _EIN:
        inflected = _inflect(german, gender, german_plural, case)
        rest = f"{_EIN[case][column]} {stem}{_AFTER_EIN[case][column]} {inflected}"
        for form, start in (("a", "ein"), ("my", "mein"), ("their", "ihr")):
            german_forms[f"{form} {case}"] = start + rest
        german_forms[f"own {case}"] = ("ihr" if hers else "sein") + rest
    german_forms |= {
        "it nom": _IT["nom"][column],
        "it acc": _IT["acc"][column],
        "yours nom": ("deiner", "deine", "deins")[column],
        "in": f"in {german_forms['the dat']}".replace("in dem", "im"),
        "to": f"zu {german_forms['the dat']}".replace("zu dem", "zum").replace("zu der", "zur"),
    }
    return {"en": forms, "de": german_forms}


def _inflect(german: str, gender: str, plural: str, case: str) -> str:
    """The singular of a German noun in ``case``; ``m*`` takes the plural's -n or -en."""
    if gender == "m*" and case != "nom":
        return plural
    if case == "gen" and gender != "f":
        return german + ("es" if german[-1] in "sßxz" else "s")
    return german


# All nouns by topic, compounds included, and all professions by gender.


def _nouns(topic: str) -> list[tuple[str, ...]]:
    nouns: list[tuple[str, ...]] = []
    for english, german, gender, german_plural in lexicon.TOPICS[topic]["nouns"]:
        singular, _, plural = english.partition("/")
        plural = plural or f"{singular}s"
        nouns.append((singular, plural, german, gender, german_plural))
        for first, german_first in lexicon.TOPICS[topic]["compounds"]:
            both = german_first + german.lower(), german_first + german_plural.lower()
            nouns.append((f"{first} {singular}", f"{first} {plural}", both[0], gender, both[1]))
    return nouns


_TOPICS = [topic for topic in lexicon.TOPICS if topic != "place"]
_NOUNS = {topic: _nouns(topic) for topic in lexicon.TOPICS}
_JOBS = {
    True: [(job, f"{job}s", woman, "f", f"{woman}nen") for job, _, _, woman in lexicon.JOBS],
    False: [
        (job, f"{job}s", man.rstrip("*"), "m*" if "*" in man else "m", men)
        for job, man, men, _ in lexicon.JOBS
    ],
}
