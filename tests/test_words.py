"""The prose uses the field's words: CONTRIBUTING lists them, with the preferred ones."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "clp_jax"
UNITS = "token|byte|word|second|step|parameter|document|device|chip|core|process|line"
WORDS = {
    "resume, continue": r"\b(go|goes|going|gone|went) on\b",
    "report, say, print, name": r"\b(tells?|told)\b",
    "next to, alongside, side by side": r"\bbeside\b",
    "NaN": r"\bno numbers?\b|\bnot a number\b",
    "fix": r"\bmend(s|ed|ing)?\b",
    "for lack of, because there is no": r"\bfor want of\b",
    "forever": r"\bfor ever\b",
    "per": rf"\b(tokens?|bytes|bits|nats|FLOPs?|operations|words|files) an? ({UNITS})\b",
    "a training run, training": r"\b[Aa] training[ ,.;:]"
    r"(?!run|state|step|sequence|set|text|document)",
    "option, default, argument": r"\b(dial|knob|habit|wish)(s|es)?\b",
    "byte-fallback tokens": r"\bnames? of (a )?bytes?\b",
    "partial UTF-8": r"\bparts? of a character\b",
    "this many": r"\bso many\b",
}
RECORDS = {"lab.md", "benchmarks.md"}
SAMPLES = {"lexicon.py"}
"""The words of the quickstart's stories."""
KEYS = {"names of bytes", "parts of a character"}
"""Keys of the vocabulary report's JSON, which prints other words for them."""


def prose(file: Path) -> str:
    """The text without code and without the list of words."""
    text = file.read_text("utf-8")
    text = re.sub(r"^## Words\n.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def texts(source: str) -> Iterator[str]:
    """The comments and strings of a module, docstrings included, each on one line."""
    for line in source.splitlines():
        yield line.partition("#")[2]  # Or the rest of a string, which comes once more below.
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value not in KEYS
        ):
            yield re.sub(r"`[^`]*`", "", " ".join(node.value.split()))


def found_in(file: Path, lines: Iterable[str]) -> list[str]:
    """The words in lines of a file that have a preferred one."""
    return [
        f"{file.relative_to(REPOSITORY)}: {line[max(0, word.start() - 40) : word.end() + 40]!r}: "
        f"instead of {word[0]!r} write {preferred}"
        for line in lines
        for preferred, pattern in WORDS.items()
        for word in re.finditer(pattern, line)
    ]


def test_the_prose_uses_the_words_of_the_field():
    files = [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    files += [file for file in (REPOSITORY / "docs").rglob("*.md") if file.name not in RECORDS]
    assert [word for file in files for word in found_in(file, prose(file).splitlines())] == []


def test_the_package_uses_the_words_of_the_field():
    files = [file for file in PACKAGE.rglob("*.py") if file.name not in SAMPLES]
    found = [word for file in files for word in found_in(file, texts(file.read_text("utf-8")))]
    assert files
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """The run goes\n    on."""',
        "x = 1  # The run goes on.",
        "raise ValueError(f'{x}: the run ' 'goes on')",
    ],
)
def test_a_word_in_a_docstring_a_comment_or_a_message_is_found(source):
    assert len(found_in(REPOSITORY / "x.py", texts(source))) == 1
