"""``clp-jax quickstart``: the whole method on a small example."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_stage, read_as
from clp_jax.files import writable_path


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "quickstart",
        _run,
        "Run the whole method on a small example. Trains tiny models, transfers one, continues its "
        "training, and compares it with training from scratch. Needs no network; resumes where it "
        "stopped.",
        resumable=True,
    )
    parser.add_argument(
        "--out", default="quickstart", metavar="DIR", help="new folder (default: %(default)s)"
    )
    parser.add_argument(
        "--corpus-source",
        type=read_as(limits.Name),
        metavar="GLOB",
        help="your own text in the source language",
    )
    parser.add_argument(
        "--corpus-target",
        type=read_as(limits.Name),
        metavar="GLOB",
        help="your own text in the target language",
    )


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    writable_path(arguments.out)
    check_inputs((), [*filter(None, (arguments.corpus_source, arguments.corpus_target))])
    from clp_jax.mesh import use_compilation_cache
    from clp_jax.quickstart.run import run_quickstart

    use_compilation_cache()
    run_quickstart(arguments.out, arguments.corpus_source, arguments.corpus_target)
