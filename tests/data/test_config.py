import re
from typing import get_args

import pytest

from clp_jax.data.config import PrepareConfig
from clp_jax.data.io.sources import SOURCES
from clp_jax.errors import UserError
from clp_jax.limits import SourceKind


def test_kinds_of_sources_are_those_that_exist():
    assert get_args(SourceKind) == (*SOURCES,)


@pytest.mark.parametrize("word", ["no", "on", "12:00:00", "20241126", "2024-99-99", "1e3", "0x1f"])
def test_a_key_that_is_text_takes_any_word(word):
    config = PrepareConfig.from_yaml(None, ["--clean.exclude_tags", f"[{word}]"])
    assert config.clean.exclude_tags == (word,)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("clean.language_score", "0.9", "language is empty"),
        ("decontaminate.ngram", "8", "against is empty"),
        ("decontaminate.text_fields", "[question]", "against is empty"),
    ],
)
def test_a_key_that_would_be_ignored_is_refused(key, value, why):
    with pytest.raises(UserError, match=f"{key.split('.')[1]} would be ignored, because {why}"):
        PrepareConfig.from_yaml(None, [f"--{key}", value])


def test_the_default_that_is_printed_is_understood():
    printed = re.findall(r"^  --(\S+) \(default (.*)\)$", PrepareConfig.describe(), re.MULTILINE)
    assert len(printed) > 15
    for name, default in printed:
        section, key = name.split(".")
        found = getattr(
            getattr(PrepareConfig.from_yaml(None, [f"--{name}", default]), section), key
        )
        assert found == PrepareConfig.model_fields[section].annotation.model_fields[key].default
    PrepareConfig.from_yaml(None, ["--clean.language", "None"])
