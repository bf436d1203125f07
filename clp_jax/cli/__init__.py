"""``clp-jax STAGE``: one module per stage, with its flags and the call it makes.

A stage checks its inputs before it imports JAX, so a wrong input is reported immediately.
"""

import argparse
import inspect
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from clp_jax import __version__
from clp_jax.cli import (
    chain,
    compare,
    convert,
    doctor,
    evaluate,
    finetune,
    generate,
    graft,
    new,
    plan,
    prepare,
    push,
    quickstart,
    runs,
    tokenizer,
    train,
    transfer,
    vocab,
)
from clp_jax.errors import RunStopped, UserError
from clp_jax.faults import renamed
from clp_jax.signals import Stopped, answered_signals
from clp_jax.terminal import printable, printable_output
from clp_jax.xla_flags import set_compiler_flags

DESCRIPTION = """\
Turn a language model of one language into a model of another (CLP-Transfer).

MODEL is a Hugging Face folder, a hub id or the folder of a training run.
"""
STAGES = (
    doctor,
    quickstart,
    vocab,
    tokenizer,
    new,
    transfer,
    prepare,
    plan,
    train,
    runs,
    chain,
    finetune,
    evaluate,
    compare,
    graft,
    convert,
    push,
    generate,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends it with one sentence and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser()
    known, unknown = parser.parse_known_args(arguments)
    if unknown and not known.takes_keys:
        flags = (word.partition("=")[0] for word in unknown if word.startswith("--"))
        hint = "".join(renamed(flag.removeprefix("--").replace("-", "_")) for flag in flags)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    known.overrides = unknown
    _quiet_libraries()
    set_compiler_flags()
    with printable_output():
        try:
            with answered_signals():
                known.run(known)
        except RunStopped as stopped:
            _print_how_to_resume(stopped, known, arguments)
        except (UserError, OSError) as error:  # OSError names the file
            _fail(f"clp-jax: {printable(str(error))}")
        except KeyboardInterrupt as stopped:
            _fail(f"clp-jax: {stopped}", stopped.status if isinstance(stopped, Stopped) else 130)
        except Exception:
            _fail(printable(traceback.format_exc(), keep="\n"))


class _Parser(argparse.ArgumentParser):
    """A parser that escapes control characters in its errors, which quote the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


class _Help(argparse.HelpFormatter):
    """A list of stages with one line each."""

    def __init__(self, prog: str):
        super().__init__(prog)
        self._action_max_length = 14


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = _Parser(
        "clp-jax",
        description=DESCRIPTION,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"clp-jax {__version__}")
    stages = parser.add_subparsers(
        title="stages, in the order of use", metavar="STAGE", required=True
    )
    for stage in STAGES:
        stage.add_parser(stages)
    return parser


def _fail(reason: str, status: int = 1) -> NoReturn:
    """Exit with a status, without waiting for the other processes of a run, which may hang."""
    jax = sys.modules.get("jax")
    alone = jax is None or not jax.distributed.is_initialized()
    if alone and status == 1:
        sys.exit(reason)
    print(reason, file=sys.stderr, flush=True)
    if alone:
        sys.exit(status)
    os._exit(status)


def _print_how_to_resume(
    stopped: RunStopped, known: argparse.Namespace, arguments: Sequence[str]
) -> None:
    import jax

    if not known.resumable:
        _fail("clp-jax: stopped")
    if jax.process_index() == 0:
        flag = [] if getattr(known, "resume", True) else ["--resume"]
        print(f"clp-jax: {stopped} Resume with: clp-jax {shlex.join([*arguments, *flag])}")


def _quiet_libraries() -> None:
    """Silence Orbax's notes on defaults, errors it also raises, and the note on missing PyTorch.

    Orbax closes its event loop at the first failed write and raises that error. The tracebacks
    that asyncio and TensorStore's threads then print for the other writes are silenced too.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unless_late
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _print_unless_late(unraisable: Any) -> None:
    late = str(unraisable.exc_value) == "Event loop is closed"
    answered = isinstance(unraisable.exc_value, Stopped)  # The signal thread handles it.
    if not (late or answered or inspect.iscoroutine(unraisable.object)):
        sys.__unraisablehook__(unraisable)
