"""``clp-jax runs``: training runs side by side."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_json, add_stage, print_and_write, read_as


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "runs",
        _run,
        "List training runs side by side. Shows the progress, perplexities, speed, goodput and "
        "state of each; runs may still be in progress.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        default=["runs"],
        metavar="FOLDER",
        help="training runs, or folders with runs at any depth (default: runs)",
    )
    parser.add_argument(
        "--plot",
        type=read_as(limits.NewFile),
        metavar="FILE",
        help="plot their perplexities to FILE, a PNG",
    )
    add_json(parser, "figures")


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_places

    check_places(arguments.folders)
    from clp_jax.runs import list_runs

    found = list_runs(arguments.folders)
    print_and_write(str(found), arguments.json, found.to_dict())
    if arguments.plot:
        found.plot(arguments.plot)
