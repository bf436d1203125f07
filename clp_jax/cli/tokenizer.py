"""``clp-jax tokenizer``: a tokenizer for a language without a helper."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_group, add_stage, add_text_field, read_as
from clp_jax.files import new_path


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    actions = add_group(stages, "tokenizer", "Train a tokenizer for a language without a helper.")
    parser = add_stage(
        actions,
        "train",
        _train,
        "Train a byte-level BPE on a sample of text. transformers loads the result.",
    )
    parser.add_argument(
        "--input",
        type=read_as(limits.Name),
        required=True,
        nargs="+",
        metavar="GLOB",
        help="text in any format that `clp-jax prepare` reads; trains on 200 MB, sampled by hash",
    )
    parser.add_argument(
        "--vocab-size",
        type=read_as(limits.VocabularySize),
        default=50257,
        metavar="N",
        help="size of the vocabulary (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder")
    add_text_field(parser)


def _train(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    new_path(arguments.out)
    check_inputs((), arguments.input)
    from clp_jax.vocabulary.train import train_tokenizer

    trained = train_tokenizer(
        arguments.input, arguments.vocab_size, arguments.out, arguments.text_field
    )
    print(f"{arguments.out}: {trained}")
