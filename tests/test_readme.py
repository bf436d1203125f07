"""What README and the pages of docs/ tell to type, to import, to set and to read exists."""

import ast
import importlib
import inspect
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest

import clp_jax
from clp_jax.chain_config import ChainConfig
from clp_jax.cli import make_parser
from clp_jax.config import RunConfig
from clp_jax.data.config import PrepareConfig
from clp_jax.finetune.settings import check_settings
from clp_jax.settings import by_section, parse_flags, parse_yaml
from clp_jax.transfer.config import TransferConfig
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (REPOSITORY / "docs").rglob("*.md")
)
CONFIGS = {"train": RunConfig, "plan": RunConfig, "prepare": PrepareConfig, "chain": ChainConfig}
FILES = ("jsonl", "json", "md", "safetensors", "yaml")
FLAG = r"(?<![\w-])--[a-z][\w.-]*[a-z]"

pages = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES]
)


def blocks(page: Path) -> list[str]:
    """The blocks of code, indented or between fences, with continued lines in one."""
    text = re.sub(r"\\\n\s*", "", page.read_text("utf-8"))
    fenced = re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)
    text = re.sub(r"(?ms)^```.*?^```$", "", text)
    indented = re.findall(r"(?m)(?:^ {4}.*\n|^\n(?= {4}))+", text)
    return [block.strip("\n") for block in fenced] + [
        re.sub(r"(?m)^ {4}", "", block).strip("\n") for block in indented
    ]


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
    helps, parsers = "", [make_parser()]
    for parser in parsers:
        helps += parser.format_help()
        for action in parser._actions:
            parsers += action.choices.values() if isinstance(action.choices, dict) else []
    return set(re.findall(FLAG, helps))


@cache
def script_flags(script: Path) -> set[str]:
    """The flags of a script, and those that it may pass on."""
    return stage_flags() | set(re.findall(FLAG, script.read_text("utf-8")))


def check_stage(words: list[str]) -> None:
    """The stage takes the words, and its configuration the file and the keys among them."""
    if words[-1] in ("--help", "--version"):
        return
    words = ["configs/tiny.yaml" if word == "FILE" else word for word in words]
    arguments, rest = make_parser().parse_known_args(words)
    file = getattr(arguments, "config", None)
    if words[0] == "chain":
        ChainConfig.from_yaml(REPOSITORY / file)
    elif words[0] in CONFIGS:
        CONFIGS[words[0]].from_yaml(file and REPOSITORY / file, rest)
    elif words[0] == "finetune":
        check_settings(by_section(parse_flags(rest)), arguments.model)
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
    text = re.sub(r"https?://\S+", "", page.read_text("utf-8"))
    named = re.findall(r"\b(?:configs|scripts|colab|docs|clp_jax|tests)/[\w./-]*\w", text)
    for name in named:
        found = REPOSITORY / name.replace("NAME", "*")
        assert list(found.parent.glob(f"{found.name}*")), name


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
    scripts = [
        path for path in (REPOSITORY / "scripts").rglob("*") if path.suffix in ("", ".py", ".sh")
    ]
    known = stage_flags().union(*(script_flags(path) for path in scripts if path.is_file()))
    sections = {flag[2:].partition(".")[0] for flag in known if "." in flag}
    for code in re.findall(r"`([^`\n]+)`", page.read_text("utf-8")):
        asked = {flag for flag in re.findall(FLAG, code) if not flag.startswith("--xla_")}
        assert asked <= known, code
        for section, key in re.findall(r"(?<![\w./-])([a-z]+)\.([a-z_]+)\b(?!\()", code):
            if section in sections and key not in FILES:
                assert f"--{section}.{key}" in known, code


def test_the_extras_are_those_of_the_table():
    text = (REPOSITORY / "docs/start/install.md").read_text("utf-8")
    table = re.search(r"(?i)\| extra \|.*\n\|-.*\n((?:\|.*\n)+)", text)
    assert table is not None
    told = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table[1].splitlines()))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(told) == set(project["optional-dependencies"])


@pages
def test_python_compiles_and_its_imports_and_arguments_exist(page):
    for block in blocks(page):
        if not re.match("import |from ", block):
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert {name.name for name in node.names} <= set(dir(module))
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("clp_jax."):
                called = getattr(clp_jax, ast.unparse(node.func).split(".")[1])
                if called is clp_jax.transfer_model:
                    names = {keyword.arg for keyword in node.keywords}
                    assert names <= {"mesh", *TransferConfig.model_fields}
                elif not isinstance(called, type):
                    inspect.signature(called).bind(*node.args, **{k.arg: k for k in node.keywords})


def test_the_commands_of_the_readme_lead_from_one_to_the_next():
    """What a stage reads, an earlier one of the recipe has written."""
    stages = [make_parser().parse_known_args(words)[0] for _, *words in recipe()]
    made = [stage.out for stage in stages if hasattr(stage, "out")]
    config = RunConfig.from_yaml(REPOSITORY / "configs/bloom-6b4-clp-german.yaml")
    made += [config.train.out]
    needed = [config.model.path, config.data.train[0].path, *config.data.validation.values()]
    needed += [stage.tokenizer for stage in stages if hasattr(stage, "tokenizer")]
    for stage in stages:
        models = getattr(stage, "model", ())
        needed += [models] if isinstance(models, str) else models
    for path in needed:
        assert any(path.removeprefix(out) in ("", "/heldout") for out in made), path


def recipe() -> list[list[str]]:
    """The commands of the section with the German model."""
    (block,) = (block for block in blocks(README) if block.startswith("clp-jax transfer"))
    lines = [line for line in block.splitlines() if line.startswith("clp-jax ")]
    return [shlex.split(line) for line in lines]
