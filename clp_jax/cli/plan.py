"""``clp-jax plan``: the memory and traffic of a training run on TPUs."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_json, add_stage, print_and_write, read_as
from clp_jax.config import RunConfig
from clp_jax.errors import UserError


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "plan",
        _run,
        "Report the memory and traffic of a training run on TPUs, without a TPU. Compiles the "
        "training step for them and also counts operations. Every key of the configuration is "
        "also a flag: see `clp-jax train --help`.",
        takes_keys=True,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML, as in configs/")
    parser.add_argument(
        "--accelerator-type", required=True, metavar="TYPE", help="such as v5litepod-32 or v4-32"
    )
    parser.add_argument(
        "--largest-batch",
        action="store_true",
        help="find the largest batch that fits without accumulation",
    )
    parser.add_argument(
        "--source",
        type=read_as(limits.Name),
        metavar="MODEL",
        help="plan before the transfer, for its source (hub id, folder or config.json) instead of "
        "model.path",
    )
    parser.add_argument(
        "--vocab-size",
        type=read_as(limits.VocabularySize),
        metavar="N",
        help="with --source: size of the helper's vocabulary",
    )
    add_json(parser, "figures")


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.accelerators import slice_topology
    from clp_jax.before import check_inputs
    from clp_jax.checkpoint.names import model_of

    config = RunConfig.from_yaml(arguments.config, arguments.overrides)
    slice_topology(arguments.accelerator_type)
    source, vocab_size = arguments.source, arguments.vocab_size
    if vocab_size and not source:
        raise UserError("--vocab-size is for planning before a transfer: give its --source too.")
    check_inputs((model_of(source) if source else config.model.path,))
    import jax

    from clp_jax.plan import plan_largest_batch, plan_run

    jax.config.update("jax_platforms", "cpu")  # Only the compiler of the TPU is used.
    planned = (plan_largest_batch if arguments.largest_batch else plan_run)(
        config, arguments.accelerator_type, source=source, vocab_size=vocab_size
    )
    print_and_write(str(planned), arguments.json, planned.to_dict())
