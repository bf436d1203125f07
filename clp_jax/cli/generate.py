"""``clp-jax generate``: the continuation of a prompt."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import (
    add_compute_dtype,
    add_mesh,
    add_model,
    add_stage,
    read_as,
    start_mesh,
)


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(stages, "generate", _run, "Continue a prompt.")
    add_model(parser)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="text to continue")
    parser.add_argument(
        "--max-new-tokens",
        type=read_as(limits.NewTokens),
        default=50,
        metavar="N",
        help="maximum number of new tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=read_as(limits.Temperature),
        default=0.8,
        metavar="T",
        help="0 takes the most likely token (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=read_as(limits.Seed),
        default=0,
        metavar="N",
        help="seed of the sampling (default: %(default)s)",
    )
    add_compute_dtype(parser)
    add_mesh(parser)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    check_inputs((arguments.model,))
    from clp_jax.generate import generate_text

    text = generate_text(
        arguments.model,
        arguments.prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        dtype=arguments.dtype,
        mesh=start_mesh(arguments.mesh),
    )
    print(text)
