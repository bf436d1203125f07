"""Every recipe in configs/ can be read, says truly how many tokens it trains on, and fits."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from clp_jax.chain_config import ChainConfig
from clp_jax.cli import make_parser
from clp_jax.config import RunConfig
from clp_jax.data.config import PrepareConfig
from clp_jax.data.filters import clean_steps
from clp_jax.data.io.sources import SOURCES

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CHAINS = sorted(CONFIGS.glob("chain-*.yaml"))
CORPORA = sorted(CONFIGS.glob("corpus-*.yaml"))
RECIPES = sorted(set(CONFIGS.glob("*.yaml")) - set(CHAINS) - set(CORPORA))
PUBLISHED = {
    "gpt2-wechsel-german-ds-meg",
    "gpt2-xl-wechsel-german",
    "bloom-350m-german",
    "bloom-1b5-clp-german",
    "bloom-6b4-clp-german",
}
MODERN = {
    "gemma-3-270m-german",
    "llama-3.2-1b-german",
    "mistral-7b-german",
    "qwen3-0.6b-german",
    "smollm2-135m-german",
}

recipes = pytest.mark.parametrize("file", RECIPES, ids=[file.stem for file in RECIPES])
chains = pytest.mark.parametrize("file", CHAINS, ids=[file.stem for file in CHAINS])
corpora = pytest.mark.parametrize("file", CORPORA, ids=[file.stem for file in CORPORA])


def header(file: Path) -> str:
    comment = [line[1:] for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
    return "\n".join(comment)


def commands(file: Path) -> list[list[str]]:
    """The `clp-jax` commands of the header, split into words."""
    text = re.sub(r"\\\n\s*", "", header(file))
    return [shlex.split(line) for line in text.splitlines() if line.strip().startswith("clp-jax ")]


def test_each_published_german_model_and_each_modern_source_has_a_recipe():
    assert {file.stem for file in RECIPES} == PUBLISHED | MODERN | {
        "tiny",
        "helper",
        "polish",
        "replay-german",
    }


@recipes
def test_recipe_reads_and_takes_flags(file):
    config = RunConfig.from_yaml(file, ["--train.steps", "7", "--optimizer.learning_rate=0.5"])
    assert config.train.steps == 7
    assert config.optimizer.learning_rate == 0.5
    assert RunConfig.from_dict(yaml.safe_load(config.to_yaml())) == config


@recipes
def test_the_header_names_the_tokens(file):
    config = RunConfig.from_yaml(file)
    told = re.search(r"Tokens: ([\d.]+) (billion|million)", header(file))
    assert told is not None
    tokens = config.train.steps * config.train.batch_size * config.data.sequence_length
    unit = {"billion": 1e9, "million": 1e6}[told[2]]
    assert told[1] == f"{tokens / unit:.1f}"


@recipes
def test_microbatches_fill_the_devices_of_the_recipe(file):
    config = RunConfig.from_yaml(file)
    told = re.search(r"v5litepod-(\d+)", header(file))
    devices = int(told[1]) if told else 1
    assert config.train.batch_size // config.train.gradient_accumulation_steps % devices == 0


@recipes
def test_commands_of_the_header_are_understood_and_lead_to_the_recipe(file):
    config = RunConfig.from_yaml(file)
    made = {}
    for program, *words in commands(file):
        assert program == "clp-jax"
        arguments, _ = make_parser().parse_known_args(words)
        made[getattr(arguments, "out", None)] = arguments
    assert str(made[None].config) == f"configs/{file.name}"
    corpora = [corpus.path for corpus in config.data.train]
    for needed in (config.model.path, *corpora, *config.data.validation.values()):
        assert any(needed.startswith(str(out)) for out in made if out)


@chains
def test_chain_names_its_tokens_and_fills_its_devices(file):
    config = ChainConfig.from_yaml(file)
    told = re.search(r"Tokens: (.+) billion", header(file))
    devices = re.search(r"v5litepod-(\d+)", header(file))
    assert told is not None
    assert devices is not None
    tokens = []
    for model in config.models:
        length = (model.data or config.data).sequence_length
        tokens.append(f"{model.train.steps * model.train.batch_size * length / 1e9:.1f}")
        assert (
            model.train.batch_size // model.train.gradient_accumulation_steps % int(devices[1]) == 0
        )
    assert told[1] == " and ".join(tokens)


@chains
def test_commands_of_a_chain_prepare_all_its_corpora(file):
    config = ChainConfig.from_yaml(file)
    *prepared, planned, started = [make_parser().parse_args(words) for _, *words in commands(file)]
    assert planned.config == started.config == f"configs/{file.name}"
    assert (planned.dry_run, started.dry_run) == (True, False)
    assert {arguments.tokenizer for arguments in prepared} == {config.helper}
    sections = [model.data or config.data for model in config.models]
    needed = {corpus.path for data in sections for corpus in data.train}
    heldout = {path for data in sections for path in data.validation.values()}
    assert heldout == {f"{path}/heldout" for path in needed}
    assert {arguments.out for arguments in prepared} == needed


def test_the_chain_trains_as_the_recipes_of_its_models_do():
    config = ChainConfig.from_yaml(CONFIGS / "chain-german.yaml")
    names = ("gpt2-xl-wechsel-german", "bloom-6b4-clp-german")
    for model, name in zip(config.models, names, strict=True):
        recipe = RunConfig.from_yaml(CONFIGS / f"{name}.yaml")
        assert model.optimizer == recipe.optimizer
        assert model.train.model_dump() == recipe.train.model_dump(exclude={"out"})
        assert (model.data or config.data) == recipe.data


@corpora
def test_recipe_of_a_corpus(file, tmp_path):
    config = PrepareConfig.from_yaml(file, ["--clean.language", "sv"])
    assert config.clean.language == "sv"
    assert [SOURCES[source.kind].text for source in config.sources]
    steps = 8 + bool(config.clean.exclude_tags) if config.clean.quality else 1
    assert len(clean_steps(config.clean, tmp_path)) == steps
    assert config.corpus.heldout > 0
    ((_, *words),) = commands(file)
    assert make_parser().parse_known_args(words)[0].config == f"configs/{file.name}"
