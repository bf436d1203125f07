"""``clp-jax train``: train a model."""

import argparse
from typing import Any

from clp_jax.cli.flags import add_stage, describe_keys
from clp_jax.config import RunConfig


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "train",
        _run,
        "Train a model. Every key of the configuration is also a flag: --section.key value.",
        takes_keys=True,
        resumable=True,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML, as in configs/")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume from the newest checkpoint in the run folder, or start if there is none",
    )
    parser.add_argument("--profile", action="store_true", help="trace a few steps to RUN/profile")
    describe_keys(parser, RunConfig)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_run

    config = RunConfig.from_yaml(arguments.config, arguments.overrides)
    check_run(config)
    from clp_jax.mesh import use_compilation_cache
    from clp_jax.train.loop import train_model

    use_compilation_cache()
    train_model(config, resume=arguments.resume, profile=arguments.profile)
