"""``clp-jax evaluate``: perplexity and tasks."""

import argparse
import re
import sys
from collections.abc import Sequence
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
    add_task_folders,
    add_text_field,
    print_and_write,
    read_as,
    start_mesh,
)
from clp_jax.errors import UserError
from clp_jax.evaluate.names import TASKS

NAMED = re.compile(r"([^=/*?\[{:]+)=(.+)", re.DOTALL)
"""The name of a text and a glob; a name has no slash, and nothing of a glob."""


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
        "Measure perplexity of models on texts. It is normalised by tokens, words and bytes, "
        "with 95 percent intervals.",
    )
    parser.add_argument(
        "--model",
        required=True,
        type=read_as(limits.Name),
        nargs="+",
        metavar="MODEL",
        help="folders, hub ids or training runs",
    )
    parser.add_argument(
        "--data",
        required=True,
        type=read_as(limits.Name),
        nargs="+",
        action="append",
        metavar="[NAME=]GLOB",
        help="text in any format that `clp-jax prepare` reads; several texts have names, as in "
        "--data German='de/*.jsonl' English='en/*.jsonl', and globs without one belong to the "
        "name before them",
    )
    parser.add_argument(
        "--sequence-length",
        type=read_as(limits.SequenceLength),
        metavar="N",
        help="tokens per window; empty: the model's positions, at most 1024",
    )
    parser.add_argument(
        "--stride",
        type=read_as(limits.SequenceLength),
        metavar="N",
        help="tokens from window to window; the others of a window are only context; empty: the "
        "sequence length, without overlap",
    )
    parser.add_argument(
        "--per-document",
        action="store_true",
        help="read each document alone; otherwise documents follow each other in one stream",
    )
    add_batch_size(parser)
    add_text_field(parser)
    add_compute_dtype(parser, default="float32")
    add_mesh(parser)
    add_json(parser, "figures")


def _perplexity(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_inputs

    texts = _texts_by_name(arguments.data)
    check_inputs(arguments.model, [glob for globs in texts.values() for glob in globs])
    from clp_jax.data.corpus.store import lost_text
    from clp_jax.evaluate.perplexity import evaluate_perplexities, render_perplexities

    measured = evaluate_perplexities(
        arguments.model,
        texts,
        sequence_length=arguments.sequence_length,
        stride=arguments.stride,
        per_document=arguments.per_document,
        batch_size=arguments.batch_size,
        text_field=arguments.text_field,
        dtype=arguments.dtype,
        mesh=start_mesh(arguments.mesh),
    )
    for one in measured:
        if note := lost_text(one.perplexity.unknown_bytes, one.perplexity.bytes):
            print(": ".join(filter(None, (one.model, one.data, note))), file=sys.stderr)
    found = [one.to_dict() for one in measured]
    result = found[0] if len(found) == 1 else {"results": found}
    print_and_write(render_perplexities(measured), arguments.json, result)


def _texts_by_name(values: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The globs of each text by its name; a text without one is ``""``.

    Raises:
        UserError: some texts have names and some have none.
    """
    texts: dict[str, list[str]] = {}
    for group in values:
        name = ""
        for value in group:
            if match := NAMED.fullmatch(value):
                name, value = match.groups()
            texts.setdefault(name, []).append(value)
    if "" in texts and len(texts) > 1:
        raise UserError(
            f"--data {texts[''][0]} has no name, and other texts have: write NAME=GLOB for each."
        )
    return texts


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
        help=f"tasks, groups and tags of the harness, of --include-path, and our own: "
        f"{', '.join(TASKS)}, clp_oscar_de, and the suites paper, german and english",
    )
    add_task_folders(parser)
    parser.add_argument(
        "--num-fewshot",
        type=read_as(limits.Natural),
        metavar="N",
        help="examples with answers before each question; empty: the task's number",
    )
    add_batch_size(parser, "sequences of 256 tokens per batch, or more of shorter ones")
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
        "--calibrate",
        action="store_true",
        help="also score choices per byte, and compared with how likely they are without the "
        "question",
    )
    parser.add_argument(
        "--against",
        metavar="RESULT.json",
        help="test the scores against those that --json wrote for another model",
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
    from clp_jax.evaluate.tasks import (
        compare_results,
        evaluate_tasks,
        read_results,
        render_comparison,
        render_tasks,
    )

    others = None if arguments.against is None else read_results(arguments.against)
    results = evaluate_tasks(
        arguments.model,
        arguments.tasks.split(","),
        include_path=arguments.include_path,
        task_data=arguments.task_data,
        num_fewshot=arguments.num_fewshot,
        limit=arguments.limit,
        apply_chat_template=arguments.apply_chat_template,
        calibrate=arguments.calibrate,
        output_path=arguments.output_path,
        log_samples=arguments.log_samples,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        mesh=start_mesh(arguments.mesh),
    )
    print_and_write(render_tasks(results), arguments.json, results)
    if others is not None:
        print(f"\nAgainst {arguments.against}:\n")
        print(render_comparison(compare_results(results, others)))
