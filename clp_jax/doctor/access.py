"""Access to the hub and to the place where runs are written."""

import uuid
from pathlib import Path

from etils import epath

from clp_jax.doctor.checks import Check, one_line, within
from clp_jax.doctor.machine import check_disk
from clp_jax.errors import UserError
from clp_jax.files import is_address, storage_errors

PATIENCE = 10.0
"""Seconds that the hub may take to answer."""
BUCKET_PATIENCE = 30.0
"""Seconds that a bucket may take for a small file, with credentials."""


def check_hub() -> Check:
    """Whether the hub can be reached, and in whose name."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import build_hf_headers, get_session

    hub = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return Check("hub", "not used (HF_HUB_OFFLINE)")
    token = get_token()
    page = "/api/whoami-v2" if token else "/api/models?limit=1"

    def ask() -> tuple[int, dict[str, str]]:
        answer = get_session().get(
            hub + page, headers=build_hf_headers(token=token or False), timeout=PATIENCE
        )
        return answer.status_code, answer.json() if token and answer.is_success else {}

    try:
        status, account = within(PATIENCE, ask)
    except Exception as error:  # Of the network, and of whatever answers in place of the hub.
        reason = f"{type(error).__name__}: {one_line(error)}".rstrip(".")
        return Check(
            "hub",
            "not reached",
            f"{hub} cannot be reached ({reason}): check the network, or set HF_HUB_OFFLINE=1 if "
            "all models are on this machine.",
        )
    if status == 401:
        return Check(
            "hub",
            "the token is refused",
            f"{hub} refuses the token: set HF_TOKEN to a valid one, or unset it.",
        )
    if status >= 400:
        return Check("hub", f"status {status}", f"{hub} answers with status {status}: try later.")
    who = f"as {account.get('name')}" if token else "without a token"
    return Check("hub", f"{hub}, {who}")


def check_output(out: str) -> Check:
    """Whether runs can be written to a folder or a bucket."""
    name = "output"
    if not is_address(out):
        return check_disk(name, Path(out))
    try:
        within(BUCKET_PATIENCE, lambda: _write_and_read(out))
    except TimeoutError as error:
        problem = f"{out} does not answer ({error}): check the network and your credentials."
        return Check(name, out, problem)
    except UserError as error:
        return Check(name, out, str(error))
    return Check(name, f"{out}, written and read")


def _write_and_read(out: str) -> None:
    """Write, read and remove a small file.

    Raises:
        UserError: one of these fails.
    """
    with storage_errors(out):
        file = epath.Path(out) / f"clp-jax-doctor-{uuid.uuid4().hex}"
        file.write_text(file.name)
        read = file.read_text()
        file.unlink()
        if read != file.name:
            raise UserError(f"{out} returns other bytes than were written: choose another place.")
