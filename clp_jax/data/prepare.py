"""Text to a corpus: the stages of `clp-jax prepare`, begun or gone on with."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from clp_jax.data.tokenize import KEPT, READ, SHARDS, Count, Tokenize
from clp_jax.data.tokens import Encoder
from clp_jax.errors import UserError
from clp_jax.files import public_name, read_json, write_json

WORK = "work"
TEXT = "text"
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
    config, out = config or PrepareConfig(), Path(out)
    if limit is not None and limit < 1:
        raise UserError(f"The limit of {limit} documents leaves none: it must be 1 or more.")
    if inputs:
        given = [SourceSection(input=item, text_field=text_field) for item in inputs]
        config = config.model_copy(update={"sources": tuple(given)})
    if not config.sources:
        raise UserError("There is nothing to read: name --input files or sources in the recipe.")
    hash_ = None
    if tokenizer is not None:
        loaded = load_tokenizer(tokenizer)
        Encoder(loaded)
        hash_ = tokenizer_hash(loaded)
    tasks = plan_tasks(config.sources, limit)
    plan = {
        "recipe": _identity(config),
        "limit": limit,
        "tokenizer_hash": hash_,
        "tasks": [[_described(piece) for piece in task] for task in tasks],
        "version": version("clp-jax"),
    }
    _begin(out, plan)
    try:
        stages = _stages(config, tasks, tokenizer, source_tokenizer, limit, out)
        if not run_stages(stages, out / WORK, config.execution):
            return None
    except UserError:
        _forget_if_nothing_is_done(out)
        raise
    shutil.rmtree(out / WORK)
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
    if (out / MANIFEST).exists() or (out.exists() and not file.exists() and any(out.iterdir())):
        raise UserError(f"{out} exists already: remove it or choose another output folder.")
    if not file.exists():
        write_json(file, plan)
        return
    begun = read_json(file)
    different = [key for key, value in plan.items() if begun.get(key) != value]
    if different:
        raise UserError(
            f"{out} was begun with another {' and '.join(different)}: call with the same to go on, "
            "or remove the folder to start again."
        )


def _stages(
    config: PrepareConfig,
    tasks: Sequence[Sequence[Piece]],
    tokenizer: str | Path | None,
    source_tokenizer: str | Path | None,
    limit: int | None,
    out: Path,
) -> list[Stage]:
    """From the sources to the corpus: each deduplication reads what the stage before wrote."""
    work = out / WORK
    samples, documents = work / "samples", work / "documents"
    steps = [
        Read(tasks, config.corpus.max_broken, limit, samples),
        Count(work / READ),
        *clean_steps(config.clean, samples),
    ]
    stages, name = [], "clean"
    for method, find in deduplications(config.deduplicate).items():
        stages.append(Stage(name, [*steps, WriteDocuments(documents / name)], len(tasks)))
        found = find(Place(documents / name, len(tasks), work / method, samples))
        stages += found.stages
        steps, name = [ReadDocuments(documents / name), found.filter], found.name
    if config.decontaminate.against:
        index = work / "tests.npy"
        build_index(config.decontaminate, index)
        kept = Samples(samples, Decontaminate.name)
        steps.append(Decontaminate(config.decontaminate, index, kept))
    steps.append(Count(work / KEPT))
    if tokenizer is None:
        steps.append(WriteDocuments(out / TEXT))
    else:
        steps.append(Tokenize(str(tokenizer), out, work / SHARDS, config.corpus.heldout))
    stages.append(Stage(name, steps, len(tasks)))
    about = {
        "tokenizer": None if tokenizer is None else public_name(tokenizer),
        "recipe": _public(config),
    }
    finish = Finish(
        out,
        work,
        [stage.name for stage in stages],
        about,
        None if tokenizer is None else str(tokenizer),
        None if source_tokenizer is None else str(source_tokenizer),
    )
    return [*stages, Stage("finish", [finish], 1)]


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
