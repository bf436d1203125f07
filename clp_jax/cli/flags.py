"""What the stages of the command line share: their registration and common flags."""

import argparse
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from clp_jax import limits
from clp_jax.config import Configuration
from clp_jax.faults import fault


def add_stage(
    group: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
    *,
    takes_keys: bool = False,
    resumable: bool = False,
) -> argparse.ArgumentParser:
    """Add the parser of a stage, whose arguments go to ``run``.

    Args:
        group: Where to add the stage: all stages, or the subcommands of an `add_group`.
        name: Name of the stage on the command line.
        run: Runs the stage; it imports what it needs when it is called.
        text: The help text; its first sentence appears in the list of stages.
        takes_keys: Whether it also takes ``--section.key value``, passed in ``overrides``.
        resumable: Whether the same command resumes a stopped run.
    """
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text.split(".")[0], description=text, allow_abbrev=False
    )
    parser.set_defaults(run=run, takes_keys=takes_keys, resumable=resumable)
    return parser


def describe_keys(parser: argparse.ArgumentParser, config: type[Configuration]) -> None:
    """Put the keys of a configuration, which are flags too, at the end of a help text."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(parser.description or "", 98)
    parser.epilog = config.describe()


def add_group(stages: Any, name: str, text: str) -> Any:
    """Add a stage with subcommands, and return the group to which they are added."""
    parser = stages.add_parser(name, help=text.removesuffix("."), description=text)
    return parser.add_subparsers(title="what", metavar="WHAT", required=True)


def read_as(kind: Any) -> Callable[[str], Any]:
    """The function that reads a flag of this type."""

    def read(text: str) -> Any:
        try:
            return TypeAdapter(kind).validate_python(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(fault(error.errors()[0])) from None

    return read


def add_keys(parser: argparse.ArgumentParser, config: type[BaseModel]) -> None:
    """Add a flag for each key of a configuration; flags not given are not in the namespace."""
    for key, field in config.model_fields.items():
        flag, text = f"--{key.replace('_', '-')}", (field.description or "").replace("%", "%%")
        if get_origin(field.annotation) is Literal:
            text += f" One of {', '.join(get_args(field.annotation))}."
        if isinstance(field.default, str | int) and not isinstance(field.default, bool):
            text += f" (default: {field.default})"
        common: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", **common)
        elif field.annotation == bool | None:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif get_origin(field.annotation) is tuple:
            parser.add_argument(flag, nargs="+", metavar="GLOB", **common)
        else:
            parser.add_argument(flag, metavar=_metavar(config, key), **common)


def _metavar(config: type[BaseModel], key: str) -> str:
    """N for a number, and the last word of the key for all else."""
    schema = config.model_json_schema()["properties"][key]
    kinds = {kind.get("type") for kind in schema.get("anyOf", [schema])}
    return "N" if kinds & {"integer", "number"} else key.rpartition("_")[2].upper()


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the model that a stage reads."""
    parser.add_argument(
        "--model", required=True, metavar="MODEL", help="folder, hub id or training run"
    )


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the dtype of the written weights."""
    parser.add_argument(
        "--dtype",
        type=read_as(limits.Dtype),
        metavar="TYPE",
        help="float32, bfloat16 or float16; empty keeps the model's dtype",
    )


def add_compute_dtype(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the flag for the dtype of the computation; None: the one that suits the device."""
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default=default,
        help="precision of the computation "
        f"(default: {default or 'bfloat16 on TPUs and GPUs, float32 on CPUs'})",
    )


def add_batch_size(parser: argparse.ArgumentParser, what: str = "sequences per batch") -> None:
    """Add the flag for the number of sequences computed together."""
    parser.add_argument(
        "--batch-size",
        type=read_as(limits.BatchSize),
        default=8,
        metavar="N",
        help=f"{what} (default: %(default)s)",
    )


def add_task_folders(parser: argparse.ArgumentParser) -> None:
    """Add the flags for where tasks and their data are."""
    parser.add_argument(
        "--include-path", metavar="DIR", help="folder with further task files of the harness"
    )
    parser.add_argument(
        "--task-data",
        metavar="DIR",
        help="folder with the data of our own tasks; empty: from the hub",
    )


def add_text_field(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the field of a record that holds the text."""
    parser.add_argument(
        "--text-field",
        type=read_as(limits.Name),
        default="text",
        metavar="NAME",
        help="field with the text (default: %(default)s)",
    )


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the mesh sizes, which `start_mesh` takes."""
    parser.add_argument(
        "--mesh",
        type=_mesh_sizes,
        default=(1, -1, 1),
        metavar="DATA,FSDP,TENSOR",
        help="sizes of the mesh axes (default: fsdp over all devices)",
    )


def start_mesh(sizes: Sequence[int]) -> Any:
    """A mesh with the sizes of ``--mesh`` over the devices of all processes."""
    from clp_jax.mesh import make_mesh, start_distributed, use_compilation_cache

    start_distributed()
    use_compilation_cache()
    return make_mesh(*sizes)


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add the flag for files of results, which the model card shows."""
    parser.add_argument(
        "--results",
        type=read_as(limits.LocalName),
        nargs="+",
        default=[],
        metavar="FILE",
        help="results of the model for its card: JSON of `evaluate tasks`, `evaluate "
        "perplexity` or lm-evaluation-harness",
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the flag for the JSON file that `print_and_write` writes."""
    parser.add_argument(
        "--json",
        type=read_as(limits.NewFile),
        metavar="FILE",
        help=f"also write the {what} to FILE",
    )


def print_and_write(text: str, file: str | None, value: Any) -> None:
    """Print a result as text, and write it to the file of ``--json`` if one was given."""
    from clp_jax.files import write_json

    print(text)
    if file:
        write_json(file, value)


def _mesh_sizes(text: str) -> list[int]:
    sizes = [read_as(limits.MeshSize)(size) for size in text.split(",")]
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"{text} is not three numbers: write them as 1,8,1")
    return sizes
