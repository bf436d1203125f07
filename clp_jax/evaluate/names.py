"""The names of the tasks."""

from collections.abc import Sequence
from pathlib import Path

from clp_jax.errors import UserError

FOLDER = Path(__file__).parent / "tasks"
TASKS = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def check_tasks(tasks: Sequence[str]) -> None:
    """Check that there is a task for each name.

    Raises:
        UserError: a task is unknown.
    """
    if unknown := [name for name in tasks if name not in TASKS]:
        raise UserError(f"Unknown task {', '.join(unknown)}: choose from {', '.join(TASKS)}.")
