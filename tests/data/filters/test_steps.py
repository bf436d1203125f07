"""The recipe as a whole: its steps, and texts that would stop a careless rule."""

import pickle

import pytest
from datatrove.data import Document

from clp_jax.data.config import CleanSection
from clp_jax.data.filters import clean_steps
from clp_jax.errors import UserError

from ...marks import slow

EVERYTHING = CleanSection(
    language="de",
    exclude_tags=("noisy",),
    repair_encoding=True,
    boilerplate=True,
    min_words=5,
    quality=True,
    repetition=True,
    max_characters=1_000_000,
    mask_personal_data=True,
)


def test_only_what_is_on(tmp_path):
    assert clean_steps(CleanSection(), tmp_path) == []


def test_order_and_samples(tmp_path):
    steps = clean_steps(EVERYTHING, tmp_path)
    names = [step.name for step in steps]
    assert names == [
        "tags", "max-length", "encoding", "language", "boilerplate", "min-length", "quality",
        "repetition", "personal-data",
    ]  # fmt: skip
    writers = [getattr(step, "exclusion_writer", None) for step in steps]
    assert [w.name for w in writers if w] == [n for n in names if n[:3] not in ("enc", "per")]
    assert {writer.folder for writer in writers if writer} == {tmp_path}


def test_an_unknown_language(tmp_path):
    with pytest.raises(UserError, match=r"clean\.language: german is unknown: write an ISO"):
        clean_steps(CleanSection(language="german"), tmp_path)


def test_the_same_in_another_process_and_again(tmp_path):
    told = "Der Hund {} nach {} und ruft dort gleich heute Abend seine Freundin, die Katze, {} an."
    text = told.format("fÃ¤hrt", "KÃ¶ln", "mia@web.de") + "\nAlle Rechte vorbehalten"
    steps = pickle.loads(pickle.dumps(clean_steps(EVERYTHING, tmp_path)))
    for _ in range(2):
        data = iter([Document(text, "0"), Document("The dog goes to Cologne again.", "1")])
        for step in steps:
            data = step.run(data)
        assert [d.text for d in data] == [told.format("fährt", "Köln", "[email]")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\n ",
        "...",
        "*-" * 100_000,
        "a" * 1_000_000,
        slow("fÃ¼r " * 200_000),
        slow("DE12 ABCD " * 100_000),
    ],
    ids=["empty", "blank", "symbols", "many symbols", "one word", "mojibake", "almost IBANs"],
)
def test_no_rule_fails_or_hangs(tmp_path, text):
    for step in clean_steps(EVERYTHING, tmp_path):
        list(step.run(iter([Document(text, "0")])))
        assert step.stats.time_stats.total < 60
