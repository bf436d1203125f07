"""Every recipe in configs/ can be read, says truly how many tokens it trains on, and fits."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from clp_jax.cli import _parser
from clp_jax.config import RunConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
PUBLISHED = {
    "gpt2-wechsel-german-ds-meg",
    "gpt2-xl-wechsel-german",
    "bloom-350m-german",
    "bloom-1b5-clp-german",
    "bloom-6b4-clp-german",
}

recipes = pytest.mark.parametrize("file", RECIPES, ids=[file.stem for file in RECIPES])


def header(file: Path) -> str:
    comment = [line[1:] for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
    return "\n".join(comment)


def commands(file: Path) -> list[list[str]]:
    """The `clp-jax` commands of the header, split into words."""
    text = re.sub(r"\\\n\s*", "", header(file))
    return [shlex.split(line) for line in text.splitlines() if line.strip().startswith("clp-jax ")]


def test_each_published_german_model_has_a_recipe():
    assert {file.stem for file in RECIPES} == PUBLISHED | {"tiny"}


@recipes
def test_recipe_reads_and_takes_flags(file):
    config = RunConfig.from_yaml(file, ["--train.steps", "7", "--optimizer.learning_rate=0.5"])
    assert config.train.steps == 7
    assert config.optimizer.learning_rate == 0.5
    assert RunConfig.from_dict(yaml.safe_load(config.to_yaml())) == config


@recipes
def test_header_tells_the_tokens(file):
    config = RunConfig.from_yaml(file)
    told = re.search(r"Tokens: ([\d.]+) (billion|million)", header(file))
    assert told is not None
    tokens = config.train.steps * config.train.batch_size * config.data.sequence_length
    unit = {"billion": 1e9, "million": 1e6}[told[2]]
    assert told[1] == f"{tokens / unit:.1f}"


@recipes
def test_parts_of_a_batch_fill_the_devices_it_was_meant_for(file):
    config = RunConfig.from_yaml(file)
    told = re.search(r"v5litepod-(\d+)", header(file))
    devices = int(told[1]) if told else 1
    assert config.train.batch_size // config.train.accumulation % devices == 0


@recipes
def test_commands_of_the_header_are_understood_and_lead_to_the_recipe(file):
    config = RunConfig.from_yaml(file)
    made = {}
    for program, *words in commands(file):
        assert program == "clp-jax"
        arguments, _ = _parser().parse_known_args(words)
        made[getattr(arguments, "out", None)] = arguments
    assert str(made[None].config) == f"configs/{file.name}"
    for needed in (config.model.path, config.data.train, config.data.validation):
        assert any(needed.startswith(str(out)) for out in made if out)
