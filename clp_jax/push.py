"""Upload a model to the hub: weights, configuration, tokenizer, card and results."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from clp_jax.arguments import checked
from clp_jax.checkpoint.card import CARD
from clp_jax.checkpoint.hf import write_card
from clp_jax.checkpoint.hub import (
    DESCRIPTIONS,
    RESULTS,
    TOKENIZER_FILES,
    check_files,
    copy_model_files,
)
from clp_jax.checkpoint.names import local_model
from clp_jax.checkpoint.results_card import add_results, read_card
from clp_jax.checkpoint.run_folder import is_run_folder
from clp_jax.convert import convert_checkpoint
from clp_jax.errors import UserError
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import scratch_folder
from clp_jax.limits import FloatType, LocalPath, Name
from clp_jax.results import read_results

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
UPLOADED = ("config.json", *DESCRIPTIONS, *TOKENIZER_FILES, *WEIGHTS)
"""The only files that leave the machine."""
KEPT = {".gitattributes", RESULTS}
"""Files that may be in a repository without being uploaded again."""


@dataclass(frozen=True)
class Push:
    """What goes to the hub; ``str`` is a table and the card's metadata.

    Attributes:
        repo_id: where it goes.
        revision: the branch; None for the main one.
        private: whether a new repository is private.
        sizes: bytes of each file.
        metadata: the card's, which the hub reads.
        address: of the commit; empty for a dry run.
    """

    repo_id: str
    revision: str | None
    private: bool
    sizes: Mapping[str, int]
    metadata: Mapping[str, Any]
    address: str = ""

    def __str__(self) -> str:
        branch = f", branch {self.revision}" if self.revision else ""
        kind = "private if it is new" if self.private else "public if it is new"
        rows = [(name, f"{size:,}") for name, size in self.sizes.items()]
        total = ("all", f"{sum(self.sizes.values()):,}")
        return "\n".join(
            [
                f"To {self.repo_id}{branch}, {kind}:",
                "",
                markdown_table(("file", "bytes"), [*rows, total]),
                "",
                yaml.safe_dump(dict(self.metadata), sort_keys=False, allow_unicode=True).rstrip(),
                *(["", self.address] if self.address else []),
            ]
        )


@checked
def push_model(
    model: LocalPath,
    repo_id: Name,
    *,
    results: Sequence[LocalPath] = (),
    dtype: FloatType | None = None,
    private: bool = False,
    revision: Name | None = None,
    commit_message: str | None = None,
    dry_run: bool = False,
) -> Push:
    """Upload a model, its card and its results to the hub, in one commit.

    Only `UPLOADED` files go: no checkpoints, optimizer states, metrics or logs. A run is exported
    first; of another folder the files go as they are. The token is that of ``HF_TOKEN`` or of
    ``hf auth login``.

    Args:
        model: Run folder or Hugging Face folder.
        repo_id: Repository, such as ``org/name``; it is created if it does not exist.
        results: Files of results for the card, see `clp_jax.results.read_results`.
        dtype: Floating-point type of the weights; None keeps what they have.
        private: Whether a new repository is private; an existing one must be.
        revision: Branch; it is created if it does not exist.
        commit_message: Message of the commit.
        dry_run: Only say what would go, without network and token.

    Raises:
        UserError: the folder is not a model, the hub cannot be reached or refuses, or the
            repository is public against ``private`` or has other files.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UserError(
            f"{repo_id} is not the name of a repository: write it as org/name."
        ) from None
    folder = local_model(model)
    if folder is None or not (is_run_folder(folder) or (folder / "config.json").is_file()):
        raise UserError(f"{model} is neither a run nor a Hugging Face folder: give one.")
    api = HfApi()
    if not dry_run:
        _check_access(api, repo_id, private)
    with scratch_folder() as scratch:
        files = _export(folder, scratch, results, dtype)
        push = Push(
            repo_id,
            revision,
            private,
            sizes={name: file.stat().st_size for name, file in files.items()},
            metadata=read_card(files[CARD]).data.to_dict(),
        )
        if dry_run:
            return push
        with _hub_errors(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            _check_content(api, push)
            commit = api.create_commit(
                repo_id,
                [CommitOperationAdd(name, str(file)) for name, file in files.items()],
                commit_message=commit_message or f"Upload {Path(model).name} with clp_jax",
                revision=revision,
            )
    return replace(push, address=str(commit.commit_url))


def _export(
    folder: Path, scratch: Path, results: Sequence[str | Path], dtype: Any
) -> dict[str, Path]:
    """The files to upload by name."""
    export = scratch / "export"
    if is_run_folder(folder) or dtype is not None:
        convert_checkpoint(folder, export, "hf", dtype=dtype, results=results)
        return _found(export, UPLOADED)
    check_files(folder)
    export.mkdir()
    copy_model_files(folder, export)
    write_card(export, folder.name)
    if results:
        add_results(export, read_results(results))
    weights = _found(folder, WEIGHTS)
    if not weights:
        raise UserError(f"{folder} has no safetensors: write them with `clp-jax convert --to hf`.")
    return _found(export, UPLOADED) | weights


def _found(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by name."""
    found = (file for pattern in patterns for file in sorted(folder.glob(pattern)))
    return {file.name: file for file in found if not file.name.startswith(".")}


def _check_access(api: HfApi, repo_id: str, private: bool) -> None:
    """Make sure, before any work, that there is a token and that the repository suits.

    Raises:
        UserError: there is none, or a repository that must be private is public.
    """
    if get_token() is None:
        raise UserError(
            f"{repo_id} needs a token: set HF_TOKEN or run `hf auth login`; --dry-run needs none."
        )
    with _hub_errors(repo_id):
        try:
            public = not api.model_info(repo_id).private
        except RepositoryNotFoundError:
            return
        if private and public:
            raise UserError(
                f"{repo_id} exists and is public: leave --private out, choose another name, or "
                "change the repository's settings."
            )


def _check_content(api: HfApi, push: Push) -> None:
    """Make sure that the repository holds nothing but an earlier version of the same files.

    Raises:
        UserError: it has other files.
    """
    there = {*api.list_repo_files(push.repo_id, revision=push.revision)}
    if others := sorted(there - push.sizes.keys() - KEPT):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(
            f"{push.repo_id} has other content ({', '.join(others[:3])}{more}): choose another "
            "name, or remove these files there."
        )


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Within, report errors of the hub in one sentence."""
    try:
        yield
    except UserError:
        raise
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise UserError(
                f"{repo_id} refuses your token: use one that may write there (HF_TOKEN or `hf auth "
                "login`)."
            ) from None
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{repo_id} cannot be written ({reason}): try again later.") from None
    except Exception as error:  # Which library the hub's client speaks through is its own affair.
        raise UserError(
            f"{repo_id} cannot be reached ({type(error).__name__}): check the network and "
            "HF_HUB_OFFLINE."
        ) from error
