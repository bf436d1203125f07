"""``clp-jax push``: a model to the hub."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_dtype, add_results, add_stage, read_as


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "push",
        _run,
        "Upload a model to the hub. Weights, configuration, tokenizer, card and results go in one "
        "commit, and nothing else; a training run is exported first.",
    )
    parser.add_argument("model", metavar="MODEL_OR_RUN", help="Hugging Face folder or training run")
    parser.add_argument(
        "repo_id", metavar="REPO_ID", help="repository, such as org/name; created if it is new"
    )
    add_results(parser)
    add_dtype(parser)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--revision", type=read_as(limits.Name), metavar="BRANCH", help="branch (default: main)"
    )
    parser.add_argument("--commit-message", metavar="TEXT", help="message of the commit")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what would go: files, sizes, the card's metadata; no network, no token",
    )


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs
    from clp_jax.files import regular_file

    check_inputs((arguments.model,))
    for file in arguments.results:
        regular_file(file)
    from clp_jax.push import push_model

    print(
        push_model(
            arguments.model,
            arguments.repo_id,
            results=arguments.results,
            dtype=arguments.dtype,
            private=arguments.private,
            revision=arguments.revision,
            commit_message=arguments.commit_message,
            dry_run=arguments.dry_run,
        )
    )
