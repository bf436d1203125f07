"""``clp-jax STAGE``: one thin subcommand a stage. Each imports its room when it runs.

Before that it looks at what can be told at once: a refusal does not wait for JAX.
"""

import argparse
import inspect
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from clp_jax import __version__, limits
from clp_jax.config import ChainConfig, PrepareConfig, RunConfig, TransferConfig
from clp_jax.errors import RunStopped, UserError
from clp_jax.faults import fault
from clp_jax.files import new_path, writable_path
from clp_jax.flags import set_compiler_flags
from clp_jax.signals import Stopped, answered_signals
from clp_jax.terminal import printable, printable_output

DESCRIPTION = """\
Turn a language model of one language into a model of another (CLP-Transfer).

The stages, in the order in which they are used:
  quickstart   see the whole method work on a small example, in a few minutes
  vocab        compare the vocabularies of two models
  tokenizer    train a tokenizer, for a language that has no helper yet
  new          write the configuration of a model with that tokenizer, to be trained from scratch
  transfer     give the source model the target language's vocabulary
  prepare      turn text into a corpus of tokens
  plan         tell what a training needs of TPUs, without one
  train        train the model on, in the target language
  runs         list training runs beside each other
  chain        transfer and train models of growing size, each the helper of the next
  evaluate     measure perplexity, or score German tasks
  convert      write a model or a run in another format
  generate     let a model go on from a prompt

MODEL is a Hugging Face folder, a hub id or the folder of a training run.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends it with one sentence and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    known, unknown = parser.parse_known_args(arguments)
    if unknown and known.run not in (_train, _prepare, _plan):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    known.overrides = unknown
    _quiet_libraries()
    set_compiler_flags()
    with printable_output():
        try:
            with answered_signals():
                known.run(known)
        except RunStopped as stopped:
            _tell_how_to_go_on(stopped, known, arguments)
        except (UserError, OSError) as error:  # OSError: no permission, with the file's name
            _fail(f"clp-jax: {printable(str(error))}")
        except KeyboardInterrupt as stopped:
            _fail(f"clp-jax: {stopped}", stopped.status if isinstance(stopped, Stopped) else 130)
        except Exception:
            _fail(printable(traceback.format_exc(), keep="\n"))


def _fail(reason: str, status: int = 1) -> NoReturn:
    """End with a status; one of several processes does not wait for the others, which may hang."""
    jax = sys.modules.get("jax")
    alone = jax is None or not jax.distributed.is_initialized()
    if alone and status == 1:
        sys.exit(reason)
    print(reason, file=sys.stderr, flush=True)
    if alone:
        sys.exit(status)
    os._exit(status)


def _tell_how_to_go_on(
    stopped: RunStopped, known: argparse.Namespace, arguments: Sequence[str]
) -> None:
    import jax

    if known.run not in (_train, _chain, _quickstart):
        _fail("clp-jax: stopped")
    if jax.process_index() == 0:
        flag = ["--resume"] if known.run is _train and not known.resume else []
        print(f"clp-jax: {stopped} Go on with: clp-jax {shlex.join([*arguments, *flag])}")


def _quiet_libraries() -> None:
    """Keep back what is no news: Orbax's defaults and what it also raises, PyTorch's absence.

    Orbax ends its event loop at the first write that fails, and raises that. What asyncio and
    TensorStore's threads then have to say of the others, traceback by traceback, is kept back too.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unless_late
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _print_unless_late(unraisable: Any) -> None:
    late = str(unraisable.exc_value) == "Event loop is closed"
    answered = isinstance(unraisable.exc_value, Stopped)  # Its thread sees to it.
    if not (late or answered or inspect.iscoroutine(unraisable.object)):
        sys.__unraisablehook__(unraisable)


class _Parser(argparse.ArgumentParser):
    """Its errors repeat what they are about, which may be anything."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "clp-jax",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clp-jax {__version__}")
    stages = parser.add_subparsers(title="stages", metavar="STAGE", required=True)

    def stage(
        group: Any, name: str, run: Callable[[argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        added = group.add_parser(
            name,
            help=text.split(".")[0],
            description=text,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    quickstart = stage(
        stages,
        "quickstart",
        _quickstart,
        "See the whole method work on a small example. Tiny models are trained, one is transferred "
        "and trained on, beside training from scratch. Needs no network; goes on where it was "
        "interrupted.",
    )
    quickstart.add_argument(
        "--out", default="quickstart", metavar="DIR", help="new folder (default: %(default)s)"
    )
    quickstart.add_argument(
        "--corpus-source",
        type=_as(limits.Name),
        metavar="GLOB",
        help="your own text in the source language",
    )
    quickstart.add_argument(
        "--corpus-target",
        type=_as(limits.Name),
        metavar="GLOB",
        help="your own text in the target language",
    )

    vocab = stage(stages, "vocab", _vocab, "Compare the vocabularies of two models.")
    vocab.add_argument("--source", required=True, metavar="MODEL", help="with the old tokenizer")
    vocab.add_argument("--target", required=True, metavar="MODEL", help="with the new tokenizer")
    vocab.add_argument(
        "--data",
        type=_as(limits.Name),
        nargs="+",
        metavar="GLOB",
        help="text of the target language to compare them on (10 MB are read)",
    )
    vocab.add_argument(
        "--text-field",
        type=_as(limits.Name),
        default="text",
        metavar="NAME",
        help="field with the text (default: %(default)s)",
    )
    vocab.add_argument(
        "--fuzzy",
        action="store_true",
        help="also match tokens that differ only in case or in starting a word",
    )
    _add_json(vocab, "report")

    tokenizer = stages.add_parser(
        "tokenizer",
        help="Train a tokenizer, for a language that has no helper yet",
        description="Train a tokenizer, for a language that has no helper yet.",
    )
    actions = tokenizer.add_subparsers(title="what", metavar="WHAT", required=True)
    train_tokenizer = stage(
        actions,
        "train",
        _train_tokenizer,
        "Train a byte-level BPE on a sample of text. What it writes loads wherever GPT-2's loads.",
    )
    train_tokenizer.add_argument(
        "--input",
        type=_as(limits.Name),
        required=True,
        nargs="+",
        metavar="GLOB",
        help="text, as `clp-jax prepare` reads; 200 MB of it, drawn by hash, are trained on",
    )
    train_tokenizer.add_argument(
        "--vocab-size",
        type=_as(limits.VocabularySize),
        default=50257,
        metavar="N",
        help="number of tokens (default: %(default)s)",
    )
    train_tokenizer.add_argument("--out", required=True, metavar="DIR", help="new folder")
    train_tokenizer.add_argument(
        "--text-field",
        type=_as(limits.Name),
        default="text",
        metavar="NAME",
        help="field with the text (default: %(default)s)",
    )

    new = stage(
        stages,
        "new",
        _new,
        "Write the configuration of a new model. A GPT-2 for a tokenizer, by default of 12 layers, "
        "to be trained from random weights: `model.init: random`.",
    )
    new.add_argument(
        "--tokenizer", required=True, metavar="MODEL", help="folder or model with the tokenizer"
    )
    new.add_argument(
        "--out", required=True, type=_as(limits.LocalName), metavar="DIR", help="new folder"
    )
    for flag, kind, default, text in (
        ("--n-layer", limits.Positive, 12, "layers"),
        ("--n-embd", limits.Positive, 768, "width of the layers"),
        ("--n-head", limits.Positive, 12, "attention heads of a layer"),
        ("--n-positions", limits.SequenceLength, 1024, "longest sequence, in tokens"),
    ):
        new.add_argument(
            flag,
            type=_as(kind),
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )

    transfer = stage(
        stages,
        "transfer",
        _transfer,
        "Give the source model the target language's vocabulary. Writes a Hugging Face folder with "
        "the source's layers, a new embedding table and the helper's tokenizer.",
    )
    transfer.add_argument(
        "--source", required=True, metavar="MODEL", help="large model to transfer"
    )
    transfer.add_argument(
        "--helper",
        required=True,
        nargs="+",
        metavar="MODEL",
        help="small model of the target language; of several the best is taken",
    )
    transfer.add_argument("--out", required=True, metavar="DIR", help="new folder")
    _add_keys(transfer, TransferConfig)
    _add_mesh(transfer)

    prepare = stage(
        stages,
        "prepare",
        _prepare,
        "Turn text into a corpus of tokens. It can be cleaned and deduplicated on the way; every "
        "key of the recipe is also a flag: --section.key value. Goes on where it was interrupted.",
    )
    prepare.add_argument("--config", metavar="FILE", help="recipe, as configs/corpus-*")
    prepare.add_argument(
        "--input",
        type=_as(limits.Name),
        nargs="+",
        default=[],
        metavar="GLOB",
        help=".txt, .jsonl or .parquet files, also .gz or .zst, or hf://NAME[:CONFIG][@SPLIT]; "
        "empty: the sources of the recipe",
    )
    prepare.add_argument(
        "--tokenizer", metavar="MODEL", help="model to train on; empty: write the clean text"
    )
    prepare.add_argument("--out", required=True, metavar="DIR", help="folder of the corpus")
    prepare.add_argument(
        "--text-field",
        type=_as(limits.Name),
        metavar="NAME",
        help="field with the text of --input (default: text)",
    )
    prepare.add_argument(
        "--limit", type=_as(limits.Positive), metavar="N", help="stop after N documents"
    )
    prepare.add_argument(
        "--source-tokenizer", metavar="MODEL", help="also compare the tokenizer with that of MODEL"
    )
    prepare.formatter_class = argparse.RawDescriptionHelpFormatter
    prepare.epilog = PrepareConfig.describe()

    plan = stage(
        stages,
        "plan",
        _plan,
        "Tell what a training needs of TPUs, without one. Compiles its step for them: memory, "
        "traffic between chips, operations. Every key of the configuration is also a flag.",
    )
    plan.add_argument("--config", required=True, metavar="FILE", help="YAML, as in configs/")
    plan.add_argument(
        "--accelerator-type", required=True, metavar="TYPE", help="such as v5litepod-32 or v4-32"
    )
    plan.add_argument(
        "--largest-batch", action="store_true", help="find the largest batch that fits at once"
    )
    plan.add_argument(
        "--source",
        type=_as(limits.Name),
        metavar="MODEL",
        help="plan before the transfer: its source (hub id, folder or config.json) in place of "
        "model.path",
    )
    plan.add_argument(
        "--vocab-size",
        type=_as(limits.VocabularySize),
        metavar="N",
        help="with --source: size of the helper's vocabulary",
    )
    _add_json(plan, "figures")

    train = stage(
        stages,
        "train",
        _train,
        "Train a model. Every key of the configuration is also a flag: --section.key value.",
    )
    train.add_argument("--config", required=True, metavar="FILE", help="YAML, as in configs/")
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run folder's newest checkpoint; start anew if there is none",
    )
    train.add_argument("--profile", action="store_true", help="trace a few steps into RUN/profile")
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.epilog = RunConfig.describe()

    runs = stage(
        stages,
        "runs",
        _runs,
        "List training runs beside each other. How far each is, its perplexities, speed, goodput "
        "and state; they may be at work meanwhile.",
    )
    runs.add_argument(
        "folders",
        nargs="*",
        default=["runs"],
        metavar="FOLDER",
        help="runs, or folders with runs at any depth (default: runs)",
    )
    runs.add_argument(
        "--plot",
        type=_as(limits.NewFile),
        metavar="FILE",
        help="plot their perplexities into FILE, a PNG",
    )
    _add_json(runs, "figures")

    chain = stage(
        stages,
        "chain",
        _chain,
        "Transfer and train models of growing size, each the helper of the next. Prints what is "
        "done and what is to do; goes on where it was interrupted.",
    )
    chain.add_argument("--config", required=True, metavar="FILE", help="YAML, as configs/chain-*")
    chain.add_argument("--dry-run", action="store_true", help="check everything, print the plan")

    evaluate = stages.add_parser(
        "evaluate",
        help="Measure perplexity, or score German tasks",
        description="Measure perplexity, or score German tasks.",
    )
    kinds = evaluate.add_subparsers(title="what", metavar="WHAT", required=True)
    perplexity = stage(
        kinds,
        "perplexity",
        _perplexity,
        "Measure perplexity on text. Normalised by tokens, words and bytes.",
    )
    perplexity.add_argument("--model", required=True, metavar="MODEL")
    perplexity.add_argument(
        "--data",
        required=True,
        type=_as(limits.Name),
        nargs="+",
        metavar="GLOB",
        help="text, as `clp-jax prepare` reads",
    )
    perplexity.add_argument(
        "--sequence-length",
        type=_as(limits.SequenceLength),
        metavar="N",
        help="tokens read at once; empty: at most 1024",
    )
    _add_batch_size(perplexity)
    perplexity.add_argument(
        "--text-field",
        type=_as(limits.Name),
        default="text",
        metavar="NAME",
        help="field of the text (default: %(default)s)",
    )
    _add_compute_dtype(perplexity)
    _add_mesh(perplexity)
    _add_json(perplexity, "figures")
    tasks = stage(
        kinds,
        "tasks",
        _tasks,
        "Score German tasks without examples. Through lm-evaluation-harness (the eval extra), "
        "beside the random and the majority baseline.",
    )
    tasks.add_argument("--model", required=True, metavar="MODEL")
    tasks.add_argument("--tasks", required=True, metavar="NAME,...", help="germeval2018, pawsx_de")
    tasks.add_argument(
        "--task-data", metavar="DIR", help="folder with NAME/test.jsonl; empty: from the hub"
    )
    _add_batch_size(tasks)
    tasks.add_argument(
        "--limit", type=_as(limits.Positive), metavar="N", help="only the first N examples"
    )
    _add_compute_dtype(tasks)
    _add_mesh(tasks)
    _add_json(tasks, "scores")

    convert = stage(
        stages,
        "convert",
        _convert,
        "Write a model or a run in another format. hf is a folder that transformers loads, orbax "
        "one that holds the weights as a run does.",
    )
    convert.add_argument("input", metavar="IN", help="model or run")
    convert.add_argument("out", metavar="OUT", help="new folder")
    convert.add_argument("--to", required=True, choices=("hf", "orbax"), help="the format")
    _add_dtype(convert)
    _add_mesh(convert)

    generate = stage(stages, "generate", _generate, "Let a model go on from a prompt.")
    generate.add_argument("--model", required=True, metavar="MODEL")
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument(
        "--max-new-tokens",
        type=_as(limits.NewTokens),
        default=50,
        metavar="N",
        help="most tokens (default: %(default)s)",
    )
    generate.add_argument(
        "--temperature",
        type=_as(limits.Temperature),
        default=0.8,
        metavar="T",
        help="0 takes the likeliest token (default: %(default)s)",
    )
    generate.add_argument(
        "--seed",
        type=_as(limits.Seed),
        default=0,
        metavar="N",
        help="of the sampling (default: %(default)s)",
    )
    _add_compute_dtype(generate)
    _add_mesh(generate)
    return parser


def _as(kind: Any) -> Callable[[str], Any]:
    """How a flag of a type is read."""

    def read(text: str) -> Any:
        try:
            return TypeAdapter(kind).validate_python(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(fault(error.errors()[0])) from None

    return read


def _mesh_sizes(text: str) -> list[int]:
    sizes = [_as(limits.MeshSize)(size) for size in text.split(",")]
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"{text} is not understood: write three numbers as 1,8,1")
    return sizes


def _add_keys(parser: argparse.ArgumentParser, config: type[BaseModel]) -> None:
    """A flag for each key of a configuration; those that are not given are not in the namespace."""
    for key, field in config.model_fields.items():
        flag, text = f"--{key.replace('_', '-')}", (field.description or "").replace("%", "%%")
        common: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", **common)
        elif field.annotation == bool | None:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        elif get_origin(field.annotation) is tuple:
            parser.add_argument(flag, nargs="+", metavar="GLOB", **common)
        else:
            parser.add_argument(flag, metavar=key.rpartition("_")[2].upper(), **common)


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        type=_as(limits.Dtype),
        metavar="TYPE",
        help="float32, bfloat16 or float16; empty keeps the model's",
    )


def _add_compute_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="precision of the computation (default: bfloat16 on TPUs and GPUs, float32 on CPUs)",
    )


def _add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--json", type=_as(limits.NewFile), metavar="FILE", help=f"also write the {what} to FILE"
    )


def _add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size",
        type=_as(limits.BatchSize),
        default=8,
        metavar="N",
        help="sequences (default: %(default)s)",
    )


def _add_mesh(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mesh",
        type=_mesh_sizes,
        default=(1, -1, 1),
        metavar="DATA,FSDP,TENSOR",
        help="how devices share the work; empty: fsdp over all of them",
    )


def _mesh(sizes: Sequence[int]) -> Any:
    from clp_jax.mesh import make_mesh, start_distributed, use_compilation_cache

    start_distributed()
    use_compilation_cache()
    return make_mesh(*sizes)


def _look_at(models: Sequence[str], text: Sequence[str] = ()) -> None:
    """Tell at once of models that cannot be there, and of text that is not."""
    from clp_jax.checkpoint.names import local_model
    from clp_jax.data.pieces import text_pieces

    for model in models:
        local_model(model)
    if text:
        text_pieces(text)


def _print_and_write(text: str, file: str | None, value: Any) -> None:
    from clp_jax.files import write_json

    print(text)
    if file:
        write_json(file, value)


def _quickstart(arguments: argparse.Namespace) -> None:
    writable_path(arguments.out)
    _look_at((), [*filter(None, (arguments.corpus_source, arguments.corpus_target))])
    from clp_jax.mesh import use_compilation_cache
    from clp_jax.quickstart.run import run_quickstart

    use_compilation_cache()
    run_quickstart(arguments.out, arguments.corpus_source, arguments.corpus_target)


def _vocab(arguments: argparse.Namespace) -> None:
    _look_at((arguments.source, arguments.target), arguments.data or ())
    from clp_jax.vocabulary import compare_vocabularies

    report = compare_vocabularies(
        arguments.source,
        arguments.target,
        arguments.data,
        fuzzy=arguments.fuzzy,
        text_field=arguments.text_field,
    )
    _print_and_write(str(report), arguments.json, report.to_dict())


def _train_tokenizer(arguments: argparse.Namespace) -> None:
    new_path(arguments.out)
    _look_at((), arguments.input)
    from clp_jax.vocabulary.train import train_tokenizer

    trained = train_tokenizer(
        arguments.input, arguments.vocab_size, arguments.out, arguments.text_field
    )
    print(f"{arguments.out}: {trained}")


def _new(arguments: argparse.Namespace) -> None:
    new_path(arguments.out)
    _look_at((arguments.tokenizer,))
    from clp_jax.checkpoint.new import new_model

    sizes = ("n_layer", "n_embd", "n_head", "n_positions")
    new_model(
        arguments.tokenizer, arguments.out, **{name: getattr(arguments, name) for name in sizes}
    )
    print(f"{arguments.out}: ready to be trained, with model.init: random")


def _transfer(arguments: argparse.Namespace) -> None:
    from clp_jax.transfer.wishes import check_transfer

    given = {
        key: value for key, value in vars(arguments).items() if key in TransferConfig.model_fields
    }
    config = TransferConfig.from_dict(given, origin="transfer")
    check_transfer(arguments.source, arguments.helper, arguments.out, config)
    from clp_jax.transfer.stage import transfer_model
    from clp_jax.transfer.summary import summarize

    manifest = transfer_model(
        arguments.source,
        arguments.helper,
        arguments.out,
        mesh=_mesh(arguments.mesh),
        **given,
    )
    print(summarize(manifest, arguments.out))


def _prepare(arguments: argparse.Namespace) -> None:
    from clp_jax.data.pieces import whole_pieces

    config = PrepareConfig.from_yaml(arguments.config, arguments.overrides)
    models = filter(None, (arguments.tokenizer, arguments.source_tokenizer))
    _look_at([*models], arguments.input)
    if config.sources and not arguments.input:
        whole_pieces(config.sources)
    from clp_jax.data.prepare import prepare_corpus
    from clp_jax.data.report import summary

    manifest = prepare_corpus(
        arguments.input,
        arguments.tokenizer,
        arguments.out,
        config=config,
        text_field=arguments.text_field,
        limit=arguments.limit,
        source_tokenizer=arguments.source_tokenizer,
    )
    if manifest is None:
        print(f"{arguments.out}: its stages are in the queue; the report comes with the last.")
    else:
        print(summary(manifest))


def _train(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_run

    config = RunConfig.from_yaml(arguments.config, arguments.overrides)
    check_run(config)
    from clp_jax.mesh import use_compilation_cache
    from clp_jax.train.loop import train_model

    use_compilation_cache()
    train_model(config, resume=arguments.resume, profile=arguments.profile)


def _plan(arguments: argparse.Namespace) -> None:
    from clp_jax.accelerators import slice_topology
    from clp_jax.checkpoint.names import model_of

    config = RunConfig.from_yaml(arguments.config, arguments.overrides)
    slice_topology(arguments.accelerator_type)
    source, vocab_size = arguments.source, arguments.vocab_size
    if vocab_size and not source:
        raise UserError("--vocab-size is of what a transfer makes: name its --source too.")
    _look_at((model_of(source) if source else config.model.path,))
    import jax

    from clp_jax.plan import plan_largest_batch, plan_run

    jax.config.update("jax_platforms", "cpu")  # The chips are only compiled for.
    planned = (plan_largest_batch if arguments.largest_batch else plan_run)(
        config, arguments.accelerator_type, source=source, vocab_size=vocab_size
    )
    _print_and_write(str(planned), arguments.json, planned.to_dict())


def _runs(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_places

    check_places(arguments.folders)
    from clp_jax.runs import list_runs

    found = list_runs(arguments.folders)
    _print_and_write(str(found), arguments.json, found.to_dict())
    if arguments.plot:
        found.plot(arguments.plot)


def _chain(arguments: argparse.Namespace) -> None:
    from clp_jax.before import check_chain

    config = ChainConfig.from_yaml(arguments.config)
    check_chain(config)
    from clp_jax.chain import run_chain
    from clp_jax.mesh import use_compilation_cache

    use_compilation_cache()
    run_chain(config, dry_run=arguments.dry_run)


def _perplexity(arguments: argparse.Namespace) -> None:
    _look_at((arguments.model,), arguments.data)
    from clp_jax.data.count import lost_text
    from clp_jax.evaluate.perplexity import evaluate_perplexity
    from clp_jax.evaluate.tables import markdown_table

    perplexity = evaluate_perplexity(
        arguments.model,
        arguments.data,
        sequence_length=arguments.sequence_length,
        batch_size=arguments.batch_size,
        text_field=arguments.text_field,
        dtype=arguments.dtype,
        mesh=_mesh(arguments.mesh),
    )
    if note := lost_text(perplexity.unknown_bytes, perplexity.bytes):
        print(note, file=sys.stderr)
    result = perplexity.to_dict()
    rows = [
        [name, f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"]
        for name, value in result.items()
    ]
    _print_and_write(markdown_table(["figure", "value"], rows), arguments.json, result)


def _tasks(arguments: argparse.Namespace) -> None:
    from clp_jax.evaluate.names import check_tasks

    tasks = arguments.tasks.split(",")
    check_tasks(tasks)
    _look_at((arguments.model,))
    from clp_jax.evaluate.tasks import evaluate_tasks, render_tasks

    results = evaluate_tasks(
        arguments.model,
        tasks,
        task_data=arguments.task_data,
        batch_size=arguments.batch_size,
        limit=arguments.limit,
        dtype=arguments.dtype,
        mesh=_mesh(arguments.mesh),
    )
    _print_and_write(render_tasks(results), arguments.json, results)


def _convert(arguments: argparse.Namespace) -> None:
    new_path(arguments.out)
    _look_at((arguments.input,))
    from clp_jax.checkpoint.convert import convert_checkpoint

    convert_checkpoint(
        arguments.input,
        arguments.out,
        arguments.to,
        dtype=arguments.dtype,
        mesh=_mesh(arguments.mesh),
    )


def _generate(arguments: argparse.Namespace) -> None:
    _look_at((arguments.model,))
    from clp_jax.generate import generate_text

    text = generate_text(
        arguments.model,
        arguments.prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        dtype=arguments.dtype,
        mesh=_mesh(arguments.mesh),
    )
    print(text)
