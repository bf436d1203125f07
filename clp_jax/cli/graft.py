"""``clp-jax graft``: an adapted model that chats, without instruction data."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_dtype, add_model, add_stage, read_as
from clp_jax.files import new_path


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "graft",
        _run,
        "Add what instruction tuning changed to an adapted model. Its layers become model + "
        "(instruct - base), its tokens keep their rows, and the chat template comes along.",
    )
    add_model(parser)
    parser.add_argument(
        "--base", required=True, metavar="MODEL", help="model that both others were trained from"
    )
    parser.add_argument(
        "--instruct", required=True, metavar="MODEL", help="the base, tuned for chat"
    )
    parser.add_argument(
        "--out", required=True, type=read_as(limits.LocalName), metavar="DIR", help="new folder"
    )
    add_dtype(parser)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    new_path(arguments.out)
    check_inputs((arguments.model, arguments.base, arguments.instruct))
    from clp_jax.graft import graft_model

    print(
        graft_model(
            arguments.model,
            arguments.base,
            arguments.instruct,
            arguments.out,
            dtype=arguments.dtype,
        )
    )
