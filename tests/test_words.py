"""The prose uses the field's words: CONTRIBUTING lists them, with the preferred ones."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
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
    "a training run, training": r"\b[Aa] training[ ,.;:](?!run|step|sequence|set|text|document)",
    "option, default, argument": r"\b(dial|knob|habit|wish)(s|es)?\b",
    "byte-fallback tokens": r"\bnames? of (a )?bytes?\b",
    "partial UTF-8": r"\bparts? of a character\b",
    "this many": r"\bso many\b",
}
# Lab notes and benchmarks are a record; two pages are generated from the package's own texts.
LATER = {"lab.md", "benchmarks.md", "command-line.md", "configuration.md"}


def prose(file: Path) -> str:
    """The text without code and without the list of words."""
    text = file.read_text("utf-8")
    text = re.sub(r"^## Words\n.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def test_the_prose_uses_the_words_of_the_field():
    files = [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    files += [file for file in (REPOSITORY / "docs").rglob("*.md") if file.name not in LATER]
    found = [
        f"{file.relative_to(REPOSITORY)}: {word[0]!r} in {line.strip()[:60]!r}: write {preferred}"
        for file in files
        for line in prose(file).splitlines()
        for preferred, pattern in WORDS.items()
        for word in re.finditer(pattern, line)
    ]
    assert found == []
