"""Data sets of the Hugging Face hub, streamed: nothing is downloaded whole, no remote code runs."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from clp_jax.errors import UserError

HUB = "hf://"
_ADDRESS = re.compile(r"hf://(?P<name>[^:@]+)(?::(?P<config>[^@]+))?(?:@(?P<split>.+))?")


def check_address(address: str) -> None:
    """Check that ``address`` has the form ``hf://NAME[:CONFIG][@SPLIT]``.

    Raises:
        UserError: it does not.
    """
    if not _ADDRESS.fullmatch(address):
        raise UserError(f"{address} is not a hub data set: write hf://NAME[:CONFIG][@SPLIT].")


def hub_shards(address: str) -> int:
    """The number of files in which a data set is stored.

    Raises:
        UserError: the data set is missing or not accessible.
    """
    return _load(address).num_shards


def hub_rows(address: str, part: int, parts: int) -> Iterator[Mapping[str, Any]]:
    """The rows of one of ``parts`` equal shares of a data set.

    Raises:
        UserError: the data set is missing, not accessible or broken.
    """
    rows = _load(address)
    with _explained(address):
        yield from rows.shard(num_shards=parts, index=part) if parts > 1 else rows


def _load(address: str) -> Any:
    from datasets import load_dataset

    match = _ADDRESS.fullmatch(address)
    assert match
    name, config, split = match.groups()
    with _explained(address):
        return load_dataset(name, config, split=split or "train", streaming=True)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn the errors of a data set into a `UserError` of one sentence."""
    from datasets.exceptions import DatasetsError

    name = re.split("[:@]", address.removeprefix(HUB))[0]
    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        if _forbidden(error):
            raise UserError(
                f"{address} cannot be accessed: accept its terms on "
                f"https://huggingface.co/datasets/{name} and log in with `hf auth login`."
            ) from error
        if "Dataset scripts are no longer supported" in reason:
            raise UserError(
                f"{address} is a loading script, not data: download its files with `hf download "
                f"--repo-type dataset --local-dir FOLDER {name}` and name those that hold text."
            ) from error
        raise UserError(f"{address} cannot be read ({reason}).") from error


def _forbidden(error: BaseException | None) -> bool:
    """Whether the hub refused access, as the cause of the error or in its message."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if error is None or isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return error is not None
    status = getattr(getattr(error, "response", None), "status_code", None)
    refused = status in (401, 403) and not isinstance(error, RepositoryNotFoundError)
    return refused or _forbidden(error.__cause__ or error.__context__)
