"""``clp-jax transfer``: give a source model the vocabulary of a helper."""

import argparse
from typing import Any

from clp_jax.cli.flags import add_keys, add_mesh, add_stage, start_mesh
from clp_jax.transfer.config import TransferConfig


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "transfer",
        _run,
        "Give the source model the target language's vocabulary. Writes a Hugging Face folder with "
        "the source's layers, a new embedding table, and the helper's or another tokenizer.",
    )
    parser.add_argument(
        "--source", required=True, metavar="MODEL", help="large model of the source language"
    )
    parser.add_argument(
        "--helper",
        required=True,
        nargs="+",
        metavar="MODEL",
        help="any model that knows the target language; with several, the best is used",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder")
    add_keys(parser, TransferConfig)
    add_mesh(parser)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.transfer.checks import check_transfer

    given = {
        key: value for key, value in vars(arguments).items() if key in TransferConfig.model_fields
    }
    config = TransferConfig.from_dict(given, origin="transfer")
    check_transfer(arguments.source, arguments.helper, arguments.out, config)
    from clp_jax.transfer.report import summarize
    from clp_jax.transfer.stage import transfer_model

    manifest = transfer_model(
        arguments.source,
        arguments.helper,
        arguments.out,
        mesh=start_mesh(arguments.mesh),
        **given,
    )
    print(summarize(manifest, arguments.out))
