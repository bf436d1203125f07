"""``clp-jax prepare``: turn text into a tokenized corpus."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_stage, describe_keys, read_as
from clp_jax.data.config import PrepareConfig


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "prepare",
        _run,
        "Turn text into a tokenized corpus, optionally cleaned and deduplicated. Every key of the "
        "recipe is also a flag: --section.key value. Resumes where it stopped.",
        takes_keys=True,
    )
    parser.add_argument("--config", metavar="FILE", help="recipe, such as configs/corpus-*")
    parser.add_argument(
        "--input",
        type=read_as(limits.Name),
        nargs="+",
        default=[],
        metavar="GLOB",
        help=".txt, .jsonl or .parquet files, also .gz or .zst, or hf://NAME[:CONFIG][@SPLIT]; "
        "empty: the sources in the recipe",
    )
    parser.add_argument(
        "--tokenizer", metavar="MODEL", help="model to train; empty: write the clean text"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument(
        "--text-field",
        type=read_as(limits.Name),
        metavar="NAME",
        help="field with the text of --input (default: text)",
    )
    parser.add_argument(
        "--limit", type=read_as(limits.Positive), metavar="N", help="stop after N documents"
    )
    parser.add_argument(
        "--source-tokenizer", metavar="MODEL", help="also compare the tokenizer with MODEL's"
    )
    describe_keys(parser, PrepareConfig)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs
    from clp_jax.data.io.splits import whole_splits

    config = PrepareConfig.from_yaml(arguments.config, arguments.overrides)
    models = filter(None, (arguments.tokenizer, arguments.source_tokenizer))
    check_inputs([*models], arguments.input)
    if config.sources and not arguments.input:
        whole_splits(config.sources)
    from clp_jax.data.prepare import prepare_corpus
    from clp_jax.data.report import summary

    manifest = prepare_corpus(
        arguments.input,
        arguments.tokenizer,
        arguments.out,
        config=config,
        text_field=arguments.text_field,
        limit=arguments.limit,
        source_tokenizer=arguments.source_tokenizer,
    )
    if manifest is None:
        print(f"{arguments.out}: its stages are queued; the last one writes the report.")
    else:
        print(summary(manifest))
