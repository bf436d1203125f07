"""``clp-jax doctor``: whether this machine can run the other stages."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_json, add_stage, print_and_write, read_as
from clp_jax.errors import UserError


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "doctor",
        _run,
        "Check this machine. Reports devices, versions, memory, disks, mounts and access to the "
        "hub, what is wrong and what to do; the exit status is 1 if something is wrong. With "
        "several hosts, run it on all of them at the same time.",
    )
    parser.add_argument(
        "--out",
        type=read_as(limits.Name),
        metavar="PLACE",
        help="also check where runs will be written: a folder or gs://BUCKET/NAME",
    )
    add_json(parser, "report")


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.doctor import check_machine

    report = check_machine(arguments.out)
    print_and_write(str(report), arguments.json, report.to_dict())
    if report.problems:
        raise UserError(f"{len(report.problems)} of the checks found a problem: see above.")
