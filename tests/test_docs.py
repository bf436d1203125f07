"""The documentation: links resolve, every page is in the navigation, the reference is whole."""

import ast
import importlib.util
import re
from functools import cache, partial
from pathlib import Path

import pytest
import yaml

import clp_jax
from clp_jax.chain_config import ChainConfig
from clp_jax.cli import make_parser
from clp_jax.config import RunConfig
from clp_jax.data.config import PrepareConfig

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
OUTSIDE = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]


@cache
def script(name: str):
    """A script that generates a part of the site."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = partial(script, "reference")


@cache
def pages() -> dict[Path, str]:
    """All pages and what they hold, those that are generated too."""
    generated = {DOCS / "reference" / name: text for name, text in reference().pages().items()}
    written = {file: file.read_text("utf-8") for file in [*sorted(DOCS.rglob("*.md")), *OUTSIDE]}
    return written | generated


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub both make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(pages()[file]), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.lower()))
        found.add(re.sub(r"[-\s]+", "-", words.strip()))
    return found


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text).replace("]\n(", "]("))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def navigation(entries) -> list[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(entries, str):
        return [entries]
    inner = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in inner for page in navigation(entry)]


def test_links_lead_to_files_and_headings():
    broken = []
    for file, text in pages().items():
        for link in links(text):
            name, _, anchor = link.partition("#")
            target = (file.parent / name).resolve() if name else file
            there = target in pages() or target.exists()
            if not there or (anchor and anchor not in anchors(target)):
                broken.append(f"{file.relative_to(REPOSITORY)}: {link}")
    assert broken == []


def test_commands_on_the_site_show_without_scrolling():
    blocks = [
        (file, block)
        for file, text in pages().items()
        if file.is_relative_to(DOCS)
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if kind != "text"  # What models wrote has lines of any length.
    ]
    assert len(blocks) > 50
    assert [
        (file, line) for file, block in blocks for line in block.split("\n") if len(line) > 90
    ] == []


def test_every_page_is_in_the_navigation_once():
    nav = navigation(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(nav) == sorted(
        str(file.relative_to(DOCS)) for file in pages() if file.is_relative_to(DOCS)
    )


def test_curves_are_those_of_the_tables():
    figures = script("figures")
    curves = {
        file: picture.curves(figures.read_table(picture.page, picture.heading))
        for file, picture in figures.PICTURES.items()
    }
    assert all((DOCS / "images" / file).is_file() for file in curves)
    for file in ("quickstart-real.png", "quickstart-made-up.png"):
        assert list(curves[file]) == ["transfer", "scratch"]
        for curve in curves[file].values():
            assert [tokens for tokens, _ in curve] == [*range(0, 81_921, 10_240)]
            assert all(1 < perplexity < 3_000 for _, perplexity in curve)
    assert list(curves["methods.png"]) == list(figures.METHODS)
    for curve in curves["methods.png"].values():
        assert [tokens for tokens, _ in curve] == [0, 102_400, 204_800]
        assert curve[0][1] > curve[-1][1] > 100


@pytest.mark.parametrize("part", ["start", "how-to", "concepts", "reference"])
def test_pages_begin_with_what_they_are_for_and_a_command(part):
    for file, text in pages().items():
        if file.parent == DOCS / part:
            title, _, rest = text.partition("\n")
            opening = rest.split("\n## ")[0]
            assert title.startswith("# "), file
            assert not opening.lstrip().startswith(("```", "#")), file
            assert "\n```sh\n" in opening, file


def test_the_reference_names_every_stage_and_flag():
    page = pages()[DOCS / "reference" / "command-line.md"]
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    parsers = [*reference().stages(make_parser())]
    assert list(sections) == [parser.prog for parser in parsers]
    for parser in parsers:
        flags = {name for action in parser._actions for name in action.option_strings}
        assert flags - {"-h", "--help"} == set(
            re.findall(
                r"(?<=[`\s])--[a-z-]+(?=[`,])", "\n".join(first_cells(sections[parser.prog]))
            )
        )


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)


@pytest.mark.parametrize("config", [RunConfig, PrepareConfig, ChainConfig])
def test_the_reference_names_every_key(config):
    page = pages()[DOCS / "reference" / "configuration.md"]
    named = {cell.strip("`") for cell in first_cells(page)}
    schema = config.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert {key for section in sections for key in section.get("properties", {})} <= named


def test_the_python_page_documents_every_public_name():
    page = pages()[DOCS / "reference" / "python.md"]
    named = set(re.findall(r"^::: clp_jax\.(\w+)$", page, re.MULTILINE))
    assert named | set(re.findall(r"`(\w+Config)`", page)) == set(clp_jax.__all__)


def messages() -> set[str]:
    """The strings of the package, with an ellipsis for what is filled in."""
    found = set()
    for file in (REPOSITORY / "clp_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if is_text(part) else "…" for part in node.values))
            elif is_text(node):
                found.add(node.value)
    return found


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_troubleshooting_is_about_messages_that_the_package_prints():
    headings = re.findall(r"^### `(.+)`$", pages()[DOCS / "troubleshooting.md"], re.MULTILINE)
    assert len(headings) > 30
    known = messages()
    unknown = [heading for heading in headings if not any(fits(heading, text) for text in known)]
    assert unknown == []


def fits(heading: str, text: str) -> bool:
    """Whether the fixed parts of a heading stand in a text, in their order."""
    at = 0
    for part in filter(None, (part.strip() for part in heading.split("…"))):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
