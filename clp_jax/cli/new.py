"""``clp-jax new``: the configuration of a model to train from scratch."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import add_stage, read_as
from clp_jax.files import new_path


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "new",
        _run,
        "Write the configuration of a new model. It is a GPT-2 for the tokenizer, by default with "
        "12 layers, to train from random weights (`model.init: random`).",
    )
    parser.add_argument(
        "--tokenizer", required=True, metavar="MODEL", help="folder or model with the tokenizer"
    )
    parser.add_argument(
        "--out", required=True, type=read_as(limits.LocalName), metavar="DIR", help="new folder"
    )
    for flag, kind, default, text in (
        ("--n-layer", limits.Positive, 12, "layers"),
        ("--n-embd", limits.Positive, 768, "width of the layers"),
        ("--n-head", limits.Positive, 12, "attention heads per layer"),
        ("--n-positions", limits.SequenceLength, 1024, "longest sequence, in tokens"),
    ):
        parser.add_argument(
            flag,
            type=read_as(kind),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    new_path(arguments.out)
    check_inputs((arguments.tokenizer,))
    from clp_jax.checkpoint.new import new_model

    sizes = ("n_layer", "n_embd", "n_head", "n_positions")
    new_model(
        arguments.tokenizer, arguments.out, **{name: getattr(arguments, name) for name in sizes}
    )
    print(f"{arguments.out}: ready to train with model.init: random")
