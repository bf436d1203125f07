"""Turns text into a corpus: starts or resumes the stages of `clp-jax prepare`."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from clp_jax.arguments import checked
from clp_jax.checkpoint.hub import load_tokenizer, tokenizer_hash
from clp_jax.data.config import ExecutionSection, PrepareConfig, SourceSection
from clp_jax.data.corpus.store import MANIFEST
from clp_jax.data.corpus.tokenize import (
    HELDOUT,
    KEPT,
    SAMPLES,
    SHARDS,
    TEXT,
    Tokenize,
    WriteText,
)
from clp_jax.data.dedup import deduplications
from clp_jax.data.execution import only_run, run_stages
from clp_jax.data.filters import clean_steps
from clp_jax.data.filters.decontamination import Decontaminate, build_index
from clp_jax.data.finish import Finish, NothingLeft
from clp_jax.data.io.readers import Read
from clp_jax.data.io.splits import Split, plan_tasks
from clp_jax.data.samples import Samples
from clp_jax.data.seals import CheckSeals
from clp_jax.data.stages import ReadDocuments, Stage, Workspace, WriteDocuments
from clp_jax.errors import UserError
from clp_jax.files import public_name, read_json, remove_partial, writable_path, write_json
from clp_jax.limits import Inputs, LocalPath, Name, PathOrName, Positive

WORK = "work"
TESTS, _NEW_TESTS = "tests", "new-tests"
_INDEX = "index.npy"
_PLAN = "plan.json"


@checked
def prepare_corpus(
    inputs: Inputs,
    tokenizer: PathOrName | None,
    out: LocalPath,
    *,
    config: PrepareConfig | None = None,
    text_field: Name | None = None,
    limit: Positive | None = None,
    source_tokenizer: PathOrName | None = None,
) -> dict[str, Any] | None:
    """Clean, deduplicate and tokenise text, for training and evaluation.

    The work is divided into tasks by the sizes of the inputs. Finished tasks are kept in
    ``out/work``: the same call resumes an interrupted one, and the corpus does not depend on
    interruptions or on the number of processes. Memory does not depend on the size of the corpus.
    A corpus is complete once it has a ``manifest.json``.

    Args:
        inputs: Files, globs and hub data sets (see `read_documents`); empty: those of ``config``.
        tokenizer: Folder or hub id of the tokenizer; None: write the clean text itself, as JSON
            lines in ``out/text``.
        out: Folder to write.
        config: The recipe; without one, documents are only tokenised.
        text_field: Key or column that holds the text of ``inputs``.
        limit: Maximum number of documents to read; a hub data set can be larger than the disk.
        source_tokenizer: A tokenizer that the report compares with the new one.

    Returns:
        The manifest; None if the stages were submitted to Slurm.

    Raises:
        UserError: the inputs, the recipe or the tokenizer cannot be used, or ``out`` holds
            something else.
    """
    config, out = config or PrepareConfig(), writable_path(out)
    if inputs:
        given = [SourceSection(input=item, text_field=text_field) for item in inputs]
        config = config.model_copy(update={"sources": tuple(given)})
    elif text_field is not None:
        raise UserError(
            "text_field would be ignored, because it is that of --input: set it for each source in "
            "the recipe."
        )
    if not config.sources:
        raise UserError("There is nothing to read: name --input files or sources in the recipe.")
    loaded = None if tokenizer is None else load_tokenizer(tokenizer)
    if source_tokenizer is not None:
        if loaded is None:
            raise UserError(
                "source_tokenizer would be ignored, because there is no tokenizer to compare it "
                "with: name one, or leave it out."
            )
        load_tokenizer(source_tokenizer)  # A damaged one is found now, not at the end.
    if loaded is not None:
        loaded.separator()
    tasks = plan_tasks(config.sources, limit)
    plan = {
        "recipe": _identity(config),
        "limit": limit,
        "tokenizer_hash": None if loaded is None else tokenizer_hash(loaded),
        "tasks": [[_described(piece) for piece in task] for task in tasks],
        "version": version("clp-jax"),
    }
    about: dict[str, Any] = {
        "tokenizer": None if tokenizer is None else public_name(tokenizer),
        "recipe": _public(config),
    }
    work = (out / WORK).absolute()  # datatrove takes ~ for the home folder.
    heldout = config.corpus.heldout
    last: PipelineStep = WriteText(out, work, heldout)
    if loaded is not None:
        last = Tokenize(loaded, out, work, heldout)
    with _held(out):
        if config.decontaminate.against:
            index = work / _NEW_TESTS / _INDEX
            about["tests"] = build_index(config.decontaminate, index)._asdict()
            plan["tests_hash"] = hashlib.sha256(index.read_bytes()).hexdigest()
        _begin(out, plan)
        if config.decontaminate.against:
            shutil.rmtree(work / TESTS, ignore_errors=True)
            index.parent.replace(work / TESTS)
        read = Read(tasks, config.corpus.max_broken, limit, work / SAMPLES)
        reported = ["clean", *deduplications(config.deduplicate)]
        check = CheckSeals(len(tasks), work / KEPT, work / SHARDS)
        finish = Finish(out, work, reported, about, loaded, source_tokenizer)
        stages = [*_stages(config, read, work, last), Stage("finish", [check, finish], 1)]
        if not _run_or_resume(stages, work, config.execution):
            return None
        shutil.rmtree(work, ignore_errors=True)
    return read_json(out / MANIFEST)


def _run_or_resume(stages: Sequence[Stage], work: Path, section: ExecutionSection) -> bool:
    """Call `run_stages`, which relies on the files of an interrupted call.

    Raises:
        UserError: one of these files is damaged, or as in `run_stages`.
    """
    begun = _is_begun(work)
    try:
        return run_stages(stages, work, section)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Any file of any stage may be damaged, in any way.
        if not begun:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"The unfinished work in {work} cannot be resumed ({reason}): remove the output folder "
            "to start again."
        ) from error


def _identity(config: PrepareConfig) -> dict[str, Any]:
    """The options that determine the corpus; where it runs and broken records do not."""
    return config.model_dump(mode="json", exclude={"execution": True, "corpus": {"max_broken"}})


def _described(piece: Split) -> dict[str, Any]:
    """A split of the input and, if it is a file, its size and modification time."""
    file = Path(piece.input)
    state = file.stat() if file.exists() else None
    return {**asdict(piece), "state": state and [state.st_size, state.st_mtime_ns]}


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Lock the output folder, which must be new, empty or hold unfinished work.

    If the block fails with nothing to resume from, the folder is restored to its earlier state.
    """
    existed, work = out.exists(), out / WORK
    taken = UserError(f"{out} exists already: remove it or choose another output folder.")
    if existed and not (out.is_dir() and (work.exists() or not any(out.iterdir()))):
        raise taken
    with only_run(work):
        if not (work / _PLAN).exists() and any(item != work for item in out.iterdir()):
            shutil.rmtree(work, ignore_errors=True)
            raise taken
        try:
            yield
        except UserError as error:
            if isinstance(error, NothingLeft) or not _is_begun(work):
                _clear(out)
                if not existed:
                    out.rmdir()
            raise


def _is_begun(work: Path) -> bool:
    """Whether a task is done or was submitted to a cluster."""
    logs = work / "logs"
    return any(logs.glob("*/completions/*")) or any(logs.glob("*/executor.pik"))


def _clear(out: Path) -> None:
    """Remove only the files that runs have written."""
    for folder in (TEXT, HELDOUT, WORK):
        shutil.rmtree(out / folder, ignore_errors=True)
    for file in (*out.glob("tokens-*.bin"), *out.glob("documents-*.npy")):
        file.unlink()
    remove_partial(out)


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Record the plan, or check that the folder's unfinished work has the same plan."""
    work = out / WORK
    begun = read_json(work / _PLAN) if (work / _PLAN).exists() and _is_begun(work) else plan
    different = [key for key, value in plan.items() if begun.get(key) != value]
    if different:
        raise UserError(
            f"{out} was started with another {' and '.join(different)}: repeat that call to "
            "resume, or remove the folder to start again."
        )
    write_json(work / _PLAN, plan)


def _stages(config: PrepareConfig, read: Read, work: Path, last: PipelineStep) -> Iterator[Stage]:
    """The stages in order; each deduplication reads the documents of the stage before."""
    samples, tasks = work / SAMPLES, len(read.tasks)
    name, steps = "clean", [read, *clean_steps(config.clean, samples)]
    for method, find in deduplications(config.deduplicate).items():
        documents = work / "documents" / name
        yield Stage(name, [*steps, WriteDocuments(documents)], tasks)
        found = find(Workspace(documents, tasks, work / method, samples))
        yield from found.stages
        name, steps = method, [ReadDocuments(documents), found.filter]
    if config.decontaminate.against:
        kept = Samples(samples, Decontaminate.name)
        steps.append(Decontaminate(config.decontaminate, work / TESTS / _INDEX, kept))
    yield Stage(name, [*steps, last], tasks)


def _public(config: PrepareConfig) -> dict[str, Any]:
    """The recipe with public names instead of local paths."""
    recipe = config.model_dump(mode="json", exclude={"execution"})
    for source in recipe["sources"]:
        source["input"] = public_name(source["input"])
    recipe["decontaminate"]["against"] = [*map(public_name, config.decontaminate.against)]
    return recipe
