"""What README and the pages of docs/ tell to type, to import, to set and to read exists."""

import ast
import importlib
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import clp_jax
from clp_jax.cli import _parser
from clp_jax.config import ChainConfig, Method, PrepareConfig, RunConfig, TransferConfig
from clp_jax.settings import parse_yaml
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (REPOSITORY / "docs").rglob("*.md")
)
CONFIGS = {"train": RunConfig, "plan": RunConfig, "prepare": PrepareConfig, "chain": ChainConfig}
FILES = ("jsonl", "json", "md", "yaml")
FLAG = r"(?<![\w-])--[a-z][\w.-]*[a-z]"

pages = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES]
)


def blocks(page: Path) -> list[str]:
    """The indented blocks of code, with continued lines in one."""
    text = re.sub(r"\\\n\s*", "", page.read_text("utf-8"))
    found = re.findall(r"(?m)(?:^ {4}.*\n|^\n(?= {4}))+", text)
    return [re.sub(r"(?m)^ {4}", "", block).strip("\n") for block in found]


def commands(page: Path, program: str) -> list[list[str]]:
    """The words behind a program's name, wherever it is called in a block."""
    lines = [line for block in blocks(page) for line in block.splitlines()]
    called = [
        re.search(rf"(?:^|[ =])(?:\./)?({program})(?: (.*?))?(?:&&|&|$)", line)
        for line in re.split(r"\n|&&", "\n".join(lines))
    ]
    return [[call[1], *shlex.split(call[2] or "", comments=True)] for call in called if call]


@cache
def stage_flags() -> set[str]:
    """The flags of all stages, and the keys of their configurations as flags."""
    helps, parsers = "", [_parser()]
    for parser in parsers:
        helps += parser.format_help()
        for action in parser._actions:
            parsers += action.choices.values() if isinstance(action.choices, dict) else []
    return set(re.findall(FLAG, helps))


def script_flags(script: Path) -> set[str]:
    """The flags of a script, and those that it may pass on."""
    return stage_flags() | set(re.findall(FLAG, script.read_text("utf-8")))


def check_stage(words: list[str]) -> None:
    """The stage takes the words, and its configuration the file and the keys among them."""
    if words == ["--help"]:
        return
    words = ["configs/tiny.yaml" if word == "FILE" else word for word in words]
    arguments, rest = _parser().parse_known_args(words)
    file = getattr(arguments, "config", None)
    if words[0] == "chain":
        ChainConfig.from_yaml(REPOSITORY / file)
    elif words[0] in CONFIGS:
        CONFIGS[words[0]].from_yaml(file and REPOSITORY / file, rest)
    else:
        assert rest == []


@pages
def test_commands_are_understood_and_their_configurations_exist(page):
    for _, *words in commands(page, "clp-jax"):
        check_stage(words)


@pages
def test_scripts_exist_and_have_the_flags(page):
    for script, *words in commands(page, r"scripts/\S+"):
        own = words[: words.index("--")] if "--" in words else words
        asked = {word.partition("=")[0] for word in own if word.startswith("--")}
        assert asked <= script_flags(REPOSITORY / script)
        if own != words:
            check_stage(words[len(own) + 1 :])


@pages
def test_files_of_the_repository_exist(page):
    text = page.read_text("utf-8")
    named = re.findall(r"\b(?:configs|scripts|colab|docs|clp_jax|tests)/[\w./-]*\w", text)
    for name in named:
        found = REPOSITORY / name.replace("NAME", "*")
        assert list(found.parent.glob(f"{found.name}*")), name


@pages
def test_links_lead_somewhere(page):
    for target, _, heading in (
        link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
        if "://" not in link
    ):  # fmt: skip
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"(?m)^#+ (.*)$", file.read_text("utf-8"))
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{target}#{heading}"


@pages
def test_settings_are_taken(page):
    for block in blocks(page):
        if re.match(rf"({'|'.join(RunConfig.model_fields)}):(\n| \{{)", block):
            settings = parse_yaml(block)
            required = {
                "model": {"path": "m"},
                "data": {"train": "c"},
                "train": {"out": "r", "steps": 1},
            }
            RunConfig.from_dict(
                {name: required.get(name, {}) | settings.get(name, {})
                 for name in required | settings}
            )  # fmt: skip


@pages
def test_keys_and_flags_in_the_text_exist(page):
    scripts = [path for path in (REPOSITORY / "scripts").rglob("*") if path.suffix in ("", ".py")]
    known = stage_flags().union(*(script_flags(path) for path in scripts if path.is_file()))
    sections = {flag[2:].partition(".")[0] for flag in known if "." in flag}
    for code in re.findall(r"`([^`\n]+)`", page.read_text("utf-8")):
        asked = {flag for flag in re.findall(FLAG, code) if not flag.startswith("--xla_")}
        assert asked <= known, code
        for section, key in re.findall(r"(?<![\w./-])([a-z]+)\.([a-z_]+)\b(?!\()", code):
            if section in sections and key not in FILES:
                assert f"--{section}.{key}" in known, code


def test_the_extras_are_those_of_the_table():
    text = README.read_text("utf-8")
    table = re.search(r"\| extra \|.*\n\|-.*\n((?:\|.*\n)+)", text)
    assert table is not None
    told = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table[1].splitlines()))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(told) == set(project["optional-dependencies"])


def test_the_methods_exist():
    text = README.read_text("utf-8")
    told = re.search(r"\| another one \| (.*) \|", text)
    assert told is not None
    words = re.findall(r"[\w-]+", told[1].replace("--method", ""))
    assert words
    assert set(words) <= set(get_args(Method))


def test_python_of_the_readme_compiles_and_its_imports_exist():
    code = [block for block in blocks(README) if re.match("import|from", block)]
    assert len(code) == 2
    for node in (node for block in code for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert {name.name for name in node.names} <= set(dir(module))


def test_python_of_the_readme_calls_what_is_there(monkeypatch):
    """The transfer and the training are only noted; their arguments are read as ever."""
    (block,) = (b for b in blocks(README) if b.startswith("import clp_jax"))
    called = []

    def transfer_model(source, helper, out, **options):
        called.append(TransferConfig.from_dict(options, origin="README"))

    def train_model(config, *, resume):
        called.append(config)

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(clp_jax, "transfer_model", transfer_model)
    monkeypatch.setattr(clp_jax, "train_model", train_model)
    exec(compile(block, "README.md", "exec"), {})
    transfer, training = called
    assert transfer.data == ("sample/*.jsonl.zst",)
    assert training == RunConfig.from_yaml("configs/bloom-6b4-clp-german.yaml")


def test_the_commands_of_the_readme_lead_from_one_to_the_next():
    """What a stage reads, an earlier one of the recipe has written."""
    stages = [_parser().parse_known_args(words)[0] for _, *words in recipe()]
    made = [stage.out for stage in stages if hasattr(stage, "out")]
    config = RunConfig.from_yaml(REPOSITORY / "configs/bloom-6b4-clp-german.yaml")
    made += [config.train.out]
    needed = [config.model.path, config.data.train[0].path, str(config.data.validation)]
    needed += [stage.tokenizer for stage in stages if hasattr(stage, "tokenizer")]
    needed += [stage.model for stage in stages if hasattr(stage, "model")]
    for path in needed:
        assert any(path.removeprefix(out) in ("", "/heldout") for out in made), path
    (pytorch,) = (block for block in blocks(README) if "from_pretrained" in block)
    assert set(re.findall(r'from_pretrained\("(.*)"\)', pytorch)) <= set(made)


def recipe() -> list[list[str]]:
    """The commands of the section with the German model."""
    (block,) = (block for block in blocks(README) if block.startswith("# 1. "))
    lines = [line for line in block.splitlines() if line.startswith("clp-jax ")]
    return [shlex.split(line) for line in lines]
