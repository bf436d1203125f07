"""``clp-jax evaluate``: perplexity and tasks."""

import argparse
import sys
from typing import Any

from clp_jax import limits
from clp_jax.cli.flags import (
    add_batch_size,
    add_compute_dtype,
    add_group,
    add_json,
    add_mesh,
    add_model,
    add_stage,
    add_text_field,
    print_and_write,
    read_as,
    start_mesh,
)


def add_parser(stages: Any) -> None:
    """Add the stage to the command line."""
    kinds = add_group(stages, "evaluate", "Measure perplexity, or score tasks.")
    _add_perplexity(kinds)
    _add_tasks(kinds)


def _add_perplexity(kinds: Any) -> None:
    parser = add_stage(
        kinds,
        "perplexity",
        _perplexity,
        "Measure perplexity on text. It is normalised by tokens, words and bytes.",
    )
    add_model(parser)
    parser.add_argument(
        "--data",
        required=True,
        type=read_as(limits.Name),
        nargs="+",
        metavar="GLOB",
        help="text in any format that `clp-jax prepare` reads",
    )
    parser.add_argument(
        "--sequence-length",
        type=read_as(limits.SequenceLength),
        metavar="N",
        help="tokens per window; empty: the model's positions, at most 1024",
    )
    add_batch_size(parser)
    add_text_field(parser)
    add_compute_dtype(parser, default="float32")
    add_mesh(parser)
    add_json(parser, "figures")


def _perplexity(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    check_inputs((arguments.model,), arguments.data)
    from clp_jax.data.corpus.store import lost_text
    from clp_jax.evaluate.perplexity import evaluate_perplexity
    from clp_jax.evaluate.tables import markdown_table

    perplexity = evaluate_perplexity(
        arguments.model,
        arguments.data,
        sequence_length=arguments.sequence_length,
        batch_size=arguments.batch_size,
        text_field=arguments.text_field,
        dtype=arguments.dtype,
        mesh=start_mesh(arguments.mesh),
    )
    if note := lost_text(perplexity.unknown_bytes, perplexity.bytes):
        print(note, file=sys.stderr)
    result = perplexity.to_dict()
    rows = [[name, _shown(value)] for name, value in result.items()]
    print_and_write(markdown_table(["figure", "value"], rows), arguments.json, result)


def _shown(value: float | int | str) -> str:
    match value:
        case float():
            return f"{value:,.4f}"
        case int():
            return f"{value:,}"
    return value


def _add_tasks(kinds: Any) -> None:
    parser = add_stage(
        kinds,
        "tasks",
        _tasks,
        "Score tasks of lm-evaluation-harness (the eval extra), with intervals and with what "
        "guessing scores.",
    )
    add_model(parser)
    parser.add_argument(
        "--tasks",
        required=True,
        type=read_as(limits.Name),
        metavar="NAME,...",
        help="tasks, groups and tags of the harness, of --include-path, and our own: "
        "germeval2018, pawsx_de, and the suites german and english",
    )
    parser.add_argument(
        "--include-path", metavar="DIR", help="folder with further task files of the harness"
    )
    parser.add_argument(
        "--task-data",
        metavar="DIR",
        help="folder with NAME/test.jsonl for our own tasks; empty: from the hub",
    )
    parser.add_argument(
        "--num-fewshot",
        type=read_as(limits.Natural),
        metavar="N",
        help="examples with answers before each question; empty: the task's number",
    )
    add_batch_size(parser)
    parser.add_argument(
        "--limit",
        type=read_as(limits.Positive),
        metavar="N",
        help="only the first N examples per task",
    )
    parser.add_argument(
        "--apply-chat-template",
        action="store_true",
        help="put each question into the tokenizer's chat template",
    )
    parser.add_argument(
        "--output-path", metavar="DIR", help="also write the harness's own result files there"
    )
    parser.add_argument(
        "--log-samples",
        action="store_true",
        help="also write each example and its answers to --output-path",
    )
    add_compute_dtype(parser)
    add_mesh(parser)
    add_json(parser, "scores")


def _tasks(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs
    from clp_jax.evaluate.names import check_outputs

    check_outputs(arguments.output_path, arguments.log_samples)
    check_inputs((arguments.model,))
    from clp_jax.evaluate.tasks import evaluate_tasks, render_tasks

    results = evaluate_tasks(
        arguments.model,
        arguments.tasks.split(","),
        include_path=arguments.include_path,
        task_data=arguments.task_data,
        num_fewshot=arguments.num_fewshot,
        limit=arguments.limit,
        apply_chat_template=arguments.apply_chat_template,
        output_path=arguments.output_path,
        log_samples=arguments.log_samples,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        mesh=start_mesh(arguments.mesh),
    )
    print_and_write(render_tasks(results), arguments.json, results)
