"""The tasks by name."""

from collections.abc import Sequence
from pathlib import Path

from clp_jax.errors import UserError

FOLDER = Path(__file__).parent / "tasks"
TASKS = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def check_tasks(tasks: Sequence[str]) -> None:
    """Make sure that there are tasks of these names.

    Raises:
        UserError: there are not.
    """
    if unknown := [name for name in tasks if name not in TASKS]:
        raise UserError(
            f"Unknown task {', '.join(unknown)}: the known ones are {', '.join(TASKS)}."
        )
