"""``clp-jax finetune``: train a model on the examples of a task."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import (
    add_json,
    add_model,
    add_stage,
    add_task_folders,
    describe_keys,
    print_and_write,
    read_as,
)
from clp_jax.config import RunConfig


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "finetune",
        _run,
        "Fine-tune a model on a task, in full or with LoRA (--lora.r 16), and score it. The runs "
        "are OUT/seed-N; the same command resumes them. Every key of the configuration of "
        "`clp-jax train` is also a flag: --section.key value; model.path, data.train, "
        "data.validation and train.out are set here, and sequence length, steps, validations, "
        "learning rate, warm-up and patience suit the task unless given.",
        takes_keys=True,
        resumable=True,
    )
    add_model(parser)
    parser.add_argument(
        "--task",
        required=True,
        type=read_as(limits.Name),
        metavar="NAME",
        help="a task with choices and training examples, by its name in `clp-jax evaluate tasks`",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=read_as(limits.LocalName),
        metavar="DIR",
        help="folder for the examples and the runs",
    )
    add_task_folders(parser)
    parser.add_argument(
        "--train-examples",
        type=read_as(limits.Positive),
        metavar="N",
        help="only N training examples, drawn at random; a tenth of them is held out",
    )
    parser.add_argument(
        "--epochs",
        type=read_as(limits.PositiveFactor),
        default=3.0,
        metavar="N",
        help="how often each example is seen at most (default: %(default)g)",
    )
    parser.add_argument(
        "--seeds",
        type=read_as(limits.Positive),
        default=1,
        metavar="N",
        help="runs, from train.seed up (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=read_as(limits.Positive),
        metavar="N",
        help="score only the first N examples of the test set",
    )
    add_json(parser, "scores")
    describe_keys(parser, RunConfig)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs
    from clp_jax.files import writable_path
    from clp_jax.settings import by_section, parse_flags

    settings = by_section(parse_flags(arguments.overrides))
    writable_path(arguments.out)
    check_inputs((arguments.model,))
    from clp_jax.finetune import finetune_model
    from clp_jax.finetune.report import render, to_dict
    from clp_jax.mesh import use_compilation_cache

    use_compilation_cache()
    tuned = finetune_model(
        arguments.model,
        arguments.task,
        arguments.out,
        task_data=arguments.task_data,
        include_path=arguments.include_path,
        train_examples=arguments.train_examples,
        limit=arguments.limit,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        settings=settings,
    )
    print_and_write(render(arguments.task, tuned), arguments.json, to_dict(arguments.task, tuned))
