"""``clp-jax compare``: runs and models on one page."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_compute_dtype, add_mesh, add_stage, read_as, start_mesh


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "compare",
        _run,
        "Compare runs and models on one page. Writes comparison.html, which needs no other file, "
        "and comparison.md: bits per byte over tokens and FLOPs, tokens to reach another run's "
        "best, tasks with intervals and significance, samples of text, tokens per word, cost.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="RUN_OR_MODEL",
        help="training runs and models; tasks are tested against the first",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the page")
    parser.add_argument(
        "--results",
        nargs="+",
        default=[],
        type=_of_model,
        metavar="MODEL=FILE",
        help="results of a model, named by its path or the end of it: JSON of `evaluate tasks`, "
        "`evaluate perplexity` or lm-evaluation-harness",
    )
    parser.add_argument(
        "--prompts", nargs="+", default=[], metavar="TEXT", help="texts that each model continues"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=read_as(limits.NewTokens),
        default=50,
        metavar="N",
        help="maximum number of new tokens of a sample (default: %(default)s)",
    )
    add_compute_dtype(parser)
    add_mesh(parser)


def _of_model(text: str) -> tuple[str, str]:
    model, sign, file = text.partition("=")
    if not (model and sign and file):
        raise argparse.ArgumentTypeError(f"{text} does not say whose results it has: MODEL=FILE")
    return model, file


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs
    from clp_jax.files import new_path, regular_file

    new_path(arguments.out)
    check_inputs(arguments.models)
    results: dict[str, list[str]] = {}
    for model, file in arguments.results:
        results.setdefault(model, []).append(str(regular_file(file)))
    from clp_jax.compare import compare_models

    page = compare_models(
        arguments.models,
        arguments.out,
        results=results,
        prompts=arguments.prompts,
        max_new_tokens=arguments.max_new_tokens,
        dtype=arguments.dtype,
        mesh=start_mesh(arguments.mesh),
    )
    print(page)
