"""``clp-jax chain``: models of increasing size, each the helper of the next."""

import argparse
from typing import Any

from clp_jax.chain_config import ChainConfig
from clp_jax.cli.flags import add_stage


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "chain",
        _run,
        "Transfer and train models of increasing size, each the helper of the next. Prints what is "
        "done and what remains; resumes where it stopped.",
        resumable=True,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="YAML, such as configs/chain-*"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan"
    )


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_chain

    config = ChainConfig.from_yaml(arguments.config)
    check_chain(config)
    from clp_jax.chain import run_chain
    from clp_jax.mesh import use_compilation_cache

    use_compilation_cache()
    run_chain(config, dry_run=arguments.dry_run)
