"""Words and sentences without knowing the language."""

import pickle
import subprocess
import sys

import pytest
from datatrove.utils.text import split_into_words

from clp_jax.data.words import Words, is_symbol


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t", []),
        ("Ich hab's – „gut“!", ["Ich", "hab's", "–", "„", "gut", "“", "!"]),
        (
            "E-Mail-Adresse -5 Ost- und West",
            ["E-Mail-Adresse", "-", "5", "Ost", "-", "und", "West"],
        ),
        ("3,5 %", ["3", ",", "5", "%"]),
        ("a_b", ["a", "_", "b"]),
        ("l’été", ["l’été"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are not letters, but belong to the word
        ("Ме́жду", ["Ме́жду"]),  # nor is the accent
    ],
)
def test_words(text, words):
    assert Words().word_tokenize(text) == words


def test_symbols_are_distinguished_from_words():
    words = Words().word_tokenize("§ 5 kostet 3 € – ein „A“.")
    assert [word for word in words if not is_symbol(word)] == ["5", "kostet", "3", "ein", "A"]


def test_sentences_end_at_marks_and_lines():
    text = "Ja. „Wirklich?“ fragte sie …\nÜberschrift\n\n 3.5 Uhr!? Nein"
    sentences = ["Ja.", "„Wirklich?“", "fragte sie …", "Überschrift", "3.5 Uhr!?", "Nein"]
    assert Words().sent_tokenize(text) == sentences
    assert [text[a:b] for a, b in Words().span_tokenize(text)] == sentences


def test_filters_share_one_pass():
    text = "Ein Satz, den sonst niemand schreibt: 4711."
    assert split_into_words(text, Words()) is split_into_words(text, Words())


def test_a_copy_in_another_process_is_equal():
    copy = pickle.loads(pickle.dumps(Words()))
    assert copy == Words()
    assert hash(copy) == hash(Words())


def test_no_language_package_is_loaded():
    code = (
        "import sys; from clp_jax.data.words import Words; "
        "from datatrove.utils.text import split_into_words; split_into_words('Ein Wort', Words()); "
        "assert {'spacy', 'nltk', 'stanza'}.isdisjoint(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
