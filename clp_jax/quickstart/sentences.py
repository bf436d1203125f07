"""Simple English and German texts about a small world, generated from a seed alone.

`lexicon` has the words and the sentence patterns of both languages side by side. The grammar here
inflects words for the slots of a pattern: ``{x[the acc]}`` is the thing x with its German article
as accusative object, ``{x[-acc]}`` its form after ein, mein, sein or ihr.
"""

import random
import re
from collections.abc import Iterator
from typing import Any, Literal

from clp_jax.quickstart import lexicon
from clp_jax.quickstart.lexicon import Entry, Topic

Language = Literal["en", "de"]
Word = tuple[Any, Any]
"""A word in English and in German: a number, plain text, or a table of its forms."""

_SHE: Word = {"he": "she", "his": "her"}, {"he": "sie", "his": "ihr"}
_HE: Word = {"he": "he", "his": "his"}, {"he": "er", "his": "sein"}

# German words and endings for masculine, feminine and neuter.
_THE = {"nom": ["der", "die", "das"], "acc": ["den", "die", "das"], "dat": ["dem", "der", "dem"]}
_AFTER_THE = {"nom": ["e", "e", "e"], "acc": ["en", "e", "e"], "dat": ["en", "en", "en"]}
_A = {"nom": ["", "e", ""], "acc": ["en", "e", ""], "dat": ["em", "er", "em"]}
_AFTER_A = {"nom": ["er", "e", "es"], "acc": ["en", "e", "es"], "dat": ["en", "en", "en"]}


def documents(language: Language, seed: int) -> Iterator[str]:
    """Endless short texts of six to eleven sentence patterns.

    Args:
        language: ``"en"`` or ``"de"``; one seed gives the same texts in both.
        seed: Another seed gives other texts, for instance held-out ones.
    """
    rng = random.Random(seed)
    side = ("en", "de").index(language)
    while True:
        body = rng.sample(lexicon.MIDDLES, rng.randint(5, 10))
        scene, topic = _draw_scene(rng), rng.choice(lexicon.TOPICS)
        sentences = []
        for pattern in (rng.choice(lexicon.OPENINGS), *body):
            words = scene | _draw_words(rng, topic)
            slots = {slot: word[side] for slot, word in words.items()}
            sentences.append(_polish(pattern[side].format(**slots)))
        yield " ".join(sentences)


def _polish(text: str) -> str:
    """Contract German articles; begin sentences and quotations with a capital letter."""
    for apart, together in ((" in dem ", " im "), (" zu dem ", " zum "), (" zu der ", " zur ")):
        text = text.replace(apart, together)
    return re.sub(r"(^|[.?!] |„|“)([a-zäöü])", lambda m: m[1] + m[2].upper(), text)


def _draw_scene(rng: random.Random) -> dict[str, Word]:
    """The words that are constant in a text: two people with their pronouns, and two towns."""
    a, b = rng.sample(lexicon.WOMEN + lexicon.MEN, 2)
    town, other_town = rng.sample(lexicon.TOWNS, 2)
    pronouns = [_SHE if name in lexicon.WOMEN else _HE for name in (a, b)]
    return {"a": a, "b": b, "A": pronouns[0], "B": pronouns[1], "c": town, "o": other_town}


def _draw_words(rng: random.Random, topic: Topic) -> dict[str, Word]:
    """The words that vary between the sentences of a text on ``topic``."""
    nouns, adjectives, verbs = topic
    x, y = (_phrase(noun, rng.choice(adjectives)) for noun in rng.sample(nouns, 2))
    v, u = map(_verb, rng.sample(verbs, 2))
    places, place_adjectives, _ = lexicon.PLACES
    jobs, job_adjectives, _ = lexicon.JOBS
    adjective, month = rng.choice(adjectives), rng.choice(lexicon.MONTHS)
    day, year = rng.randint(1, 28), rng.randint(1950, 1999)
    price = f"{rng.randint(1, 99)}.{rng.choice([20, 50, 95, 99])}"
    many = f"{rng.randint(1_000, 950_000):,}"
    time = f"{rng.randint(6, 22)}:{rng.choice([15, 30, 45])}"
    return {"x": x, "y": y, "v": v, "u": u} | {
        "i": (adjective[1], adjective[3]),
        "p": _phrase(rng.choice(places), rng.choice(place_adjectives)),
        "k": _phrase(rng.choice(jobs), rng.choice(job_adjectives)),
        "s": rng.choice(lexicon.SURNAMES),
        "year": (year, year),
        "time": (time, time),
        "date": (f"{day} {month[0]} {year}", f"{day}. {month[1]} {year}"),
        "price": (price, price.replace(".", ",")),
        "many": (many, many.replace(",", ".")),
        "count": rng.choice(lexicon.NUMBERS),
        "weekday": rng.choice(lexicon.WEEKDAYS),
        "weather": rng.choice(lexicon.WEATHER),
    }


def _verb(verb: Entry) -> Word:
    base, past, participle, infinitive, german_past, german_participle = verb
    prefix, _, stem = infinitive.rpartition("-")
    return {"base": base, "past": past, "done": participle}, {
        "base": prefix + stem,
        "to": f"{prefix}zu{stem}" if prefix else f"zu {stem}",
        "past": german_past,
        "off": f" {prefix}" if prefix else "",
        "end": prefix + german_past,
        "done": prefix + german_participle,
    }


def _phrase(noun: Entry, adjective: Entry) -> Word:
    """A noun with an adjective, in all its forms."""
    name, german_name, gender, plural = noun
    described, column = f"{adjective[0]} {name}", "mfn".index(gender[0])
    english = {"one": described, "some": f"{adjective[0]} {_plural(name)}"}
    english["a"] = f"{'an' if described[0] in 'aeiou' else 'a'} {described}"

    _, _, stem, more = adjective
    if stem.endswith(("el", "er")):
        stem = more.removesuffix("er")  # teuer, teurer, der teure
    german = {"some": f"{stem}e {plural}", "it": ("er", "sie", "es")[column]}
    for case, articles in _THE.items():
        inflected = plural if gender == "m*" and case != "nom" else german_name
        the, a = articles[column], _A[case][column]
        german[f"the {case}"] = f"{the} {stem}{_AFTER_THE[case][column]} {inflected}"
        german[f"-{case}"] = f"{a} {stem}{_AFTER_A[case][column]} {inflected}"
        german[f"that {case}"] = the
    return english, german


def _plural(noun: str) -> str:
    noun = re.sub(r"(?<=[^aeiou])y$", "ie", noun)
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
