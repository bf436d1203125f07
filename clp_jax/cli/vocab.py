"""``clp-jax vocab``: the vocabularies of two models side by side."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_json, add_stage, add_text_field, print_and_write, read_as


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(stages, "vocab", _run, "Compare the vocabularies of two models.")
    parser.add_argument(
        "--source", required=True, metavar="MODEL", help="model with the old tokenizer"
    )
    parser.add_argument(
        "--target", required=True, metavar="MODEL", help="model with the new tokenizer"
    )
    parser.add_argument(
        "--data",
        type=read_as(limits.Name),
        nargs="+",
        metavar="GLOB",
        help="text of the target language to compare them on (reads 10 MB)",
    )
    add_text_field(parser)
    parser.add_argument(
        "--fuzzy",
        action="store_true",
        help="also match tokens that differ only in case or in whether they start a word",
    )
    add_json(parser, "report")


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    check_inputs((arguments.source, arguments.target), arguments.data or ())
    from clp_jax.vocabulary import compare_vocabularies

    report = compare_vocabularies(
        arguments.source,
        arguments.target,
        arguments.data,
        fuzzy=arguments.fuzzy,
        text_field=arguments.text_field,
    )
    print_and_write(str(report), arguments.json, report.to_dict())
