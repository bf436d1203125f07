"""``clp-jax convert``: a model or a training run in another format."""

import argparse
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import (
    add_dtype,
    add_mesh,
    add_results,
    add_stage,
    add_text_field,
    read_as,
    start_mesh,
)
from clp_jax.files import new_path, regular_file


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    parser = add_stage(
        stages,
        "convert",
        _run,
        "Write a model or a training run in another format. hf is a folder that transformers "
        "loads; orbax is a folder with the weights as a training run stores them; peft is a folder "
        "with the adapters of a run with LoRA alone, which PEFT loads; gguf is one file that "
        "llama.cpp and Ollama run.",
    )
    parser.add_argument("input", metavar="IN", help="model or training run")
    parser.add_argument("out", metavar="OUT", help="new folder, or file for gguf")
    formats = ("hf", "orbax", "peft", "gguf")
    parser.add_argument("--to", required=True, choices=formats, help="output format")
    add_dtype(parser)
    add_results(parser)
    parser.add_argument(
        "--data",
        type=read_as(limits.Name),
        nargs="+",
        metavar="GLOB",
        help="for gguf: text on which the nearest pre-tokenizer of llama.cpp is found, if it has "
        "none that splits as the tokenizer does (reads 10,000 lines)",
    )
    add_text_field(parser)
    add_mesh(parser)


def _run(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    new_path(arguments.out)
    check_inputs((arguments.input,), arguments.data or ())
    for file in arguments.results:
        regular_file(file)
    from clp_jax.convert import convert_checkpoint

    report = convert_checkpoint(
        arguments.input,
        arguments.out,
        arguments.to,
        dtype=arguments.dtype,
        results=arguments.results,
        data=arguments.data,
        text_field=arguments.text_field,
        mesh=start_mesh(arguments.mesh),
    )
    if report is not None:
        print(report)
