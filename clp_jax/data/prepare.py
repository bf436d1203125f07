"""Text to a corpus: the stages of `clp-jax prepare`, begun or gone on with."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from clp_jax.checkpoint.hub import load_tokenizer, tokenizer_hash
from clp_jax.config import PrepareConfig, SourceSection
from clp_jax.data.clean import clean_steps
from clp_jax.data.decontaminate import Decontaminate, build_index
from clp_jax.data.deduplicate import deduplications
from clp_jax.data.documents import ReadDocuments, WriteDocuments
from clp_jax.data.execution import run_stages
from clp_jax.data.finish import Finish
from clp_jax.data.pieces import Piece, plan_tasks
from clp_jax.data.readers import Read
from clp_jax.data.samples import Samples
from clp_jax.data.stages import Place, Stage
from clp_jax.data.store import MANIFEST
from clp_jax.data.tokenize import KEPT, SAMPLES, SHARDS, Count, Tokenize
from clp_jax.data.tokens import Encoder
from clp_jax.errors import UserError
from clp_jax.files import local_path, public_name, read_json, write_json

WORK = "work"
TEXT = "text"
TESTS = "tests.npy"
_PLAN = "plan.json"


def prepare_corpus(
    inputs: Sequence[str],
    tokenizer: str | Path | None,
    out: str | Path,
    *,
    config: PrepareConfig | None = None,
    text_field: str | None = None,
    limit: int | None = None,
    source_tokenizer: str | Path | None = None,
) -> dict[str, Any] | None:
    """Clean, deduplicate and tokenise text, for training and evaluation.

    The work is divided into tasks by the sizes of the inputs. What a task has done is kept in
    ``out/work``: the same call goes on where one was interrupted, and the corpus does not depend
    on interruptions or on the number of processes. Memory does not depend on the size of the
    corpus. A corpus is complete when its ``manifest.json`` is there.

    Args:
        inputs: Files, globs and hub data sets (see `read_documents`); none: those of ``config``.
        tokenizer: Folder or hub id of the tokenizer; None: the clean text itself is written, as
            JSON lines in ``out/text``.
        out: Folder to write.
        config: The recipe; without one, documents are only tokenised.
        text_field: Key or column that holds the text of ``inputs``.
        limit: Read only so many documents: a hub data set can be larger than the disk.
        source_tokenizer: A tokenizer that the report compares the new one with.

    Returns:
        The manifest; None if the stages were handed to Slurm.

    Raises:
        UserError: the inputs, the recipe, the tokenizer or ``out`` are not as they should be.
    """
    config, out = config or PrepareConfig(), local_path(out)
    if limit is not None and limit < 1:
        raise UserError(f"The limit of {limit} documents leaves none: it must be 1 or more.")
    if inputs:
        given = [SourceSection(input=item, text_field=text_field) for item in inputs]
        config = config.model_copy(update={"sources": tuple(given)})
    if not config.sources:
        raise UserError("There is nothing to read: name --input files or sources in the recipe.")
    loaded = None if tokenizer is None else load_tokenizer(tokenizer)
    encoder = None if loaded is None else Encoder.of(loaded)
    tasks = plan_tasks(config.sources, limit)
    plan = {
        "recipe": _identity(config),
        "limit": limit,
        "tokenizer_hash": None if loaded is None else tokenizer_hash(loaded),
        "tasks": [[_described(piece) for piece in task] for task in tasks],
        "version": version("clp-jax"),
    }
    _begin(out, plan)
    work = out / WORK
    heldout = config.corpus.heldout
    last = Tokenize(encoder, out, work / SHARDS, heldout) if encoder else WriteDocuments(out / TEXT)
    try:
        about: dict[str, Any] = {
            "tokenizer": None if tokenizer is None else public_name(tokenizer),
            "recipe": _public(config),
        }
        if config.decontaminate.against:
            about["tests"] = build_index(config.decontaminate, work / TESTS)._asdict()
        read = Read(tasks, config.corpus.max_broken, limit, work / SAMPLES)
        reported = ["clean", *deduplications(config.deduplicate)]
        finish = Finish(out, work, reported, about, tokenizer, source_tokenizer)
        stages = [*_stages(config, read, work, last), Stage("finish", [finish], 1)]
        if not run_stages(stages, work, config.execution):
            return None
    except UserError:
        _forget_if_nothing_is_done(out)
        raise
    shutil.rmtree(work)
    return read_json(out / MANIFEST)


def _identity(config: PrepareConfig) -> dict[str, Any]:
    """What the corpus depends on: not where it is made, nor how patient one is with bad input."""
    return config.model_dump(mode="json", exclude={"execution": True, "corpus": {"max_broken"}})


def _described(piece: Piece) -> dict[str, Any]:
    """A piece of the input and, if it is a file, its size and age."""
    file = Path(piece.input)
    state = file.stat() if file.exists() else None
    return {**asdict(piece), "state": state and [state.st_size, state.st_mtime_ns]}


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or check that it holds the beginnings of the same corpus."""
    file = out / WORK / _PLAN
    if not file.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} exists already: remove it or choose another output folder.")
        write_json(file, plan)
        return
    begun = read_json(file)
    different = [key for key, value in plan.items() if begun.get(key) != value]
    if different:
        raise UserError(
            f"{out} was begun with another {' and '.join(different)}: call with the same to go on, "
            "or remove the folder to start again."
        )


def _stages(config: PrepareConfig, read: Read, work: Path, last: PipelineStep) -> Iterator[Stage]:
    """From the sources to the last step: each deduplication reads what the stage before wrote."""
    samples, tasks = work / SAMPLES, len(read.tasks)
    name, steps = "clean", [read, *clean_steps(config.clean, samples)]
    for method, find in deduplications(config.deduplicate).items():
        documents = work / "documents" / name
        yield Stage(name, [*steps, WriteDocuments(documents)], tasks)
        found = find(Place(documents, tasks, work / method, samples))
        yield from found.stages
        name, steps = method, [ReadDocuments(documents), found.filter]
    if config.decontaminate.against:
        kept = Samples(samples, Decontaminate.name)
        steps.append(Decontaminate(config.decontaminate, work / TESTS, kept))
    yield Stage(name, [*steps, Count(work / KEPT), last], tasks)


def _public(config: PrepareConfig) -> dict[str, Any]:
    """The recipe without the folders of this machine."""
    recipe = config.model_dump(mode="json", exclude={"execution"})
    for source in recipe["sources"]:
        source["input"] = public_name(source["input"])
    recipe["decontaminate"]["against"] = [*map(public_name, config.decontaminate.against)]
    return recipe


def _forget_if_nothing_is_done(out: Path) -> None:
    """Leave no folder behind if there is nothing in it to go on from."""
    if not any((out / WORK / "logs").glob("*/completions/*")):
        shutil.rmtree(out)
