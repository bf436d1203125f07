"""What `evaluate tasks` knows before it imports anything heavy: our own tasks, where results go."""

from pathlib import Path

from clp_jax.errors import UserError
from clp_jax.files import writable_path

FOLDER = Path(__file__).parent / "tasks"
_STEMS = sorted(file.stem for file in (FOLDER / "own").glob("*.yaml"))
PROMPTS = [stem for stem in _STEMS if not stem.startswith("_")]
"""Our own tasks, one for each way of asking; the names of the harness are its own."""
TASKS = [f"clp{stem}" for stem in _STEMS if f"clp{stem}_paper" in PROMPTS]
"""The tags that each name all ways of asking about one data set."""
RENAMED = {"germeval2018": "clp_germeval2018_coarse_question", "pawsx_de": "clp_pawsx_de_question"}
"""Names of earlier versions, which the harness may come to use."""


def check_outputs(output_path: str | Path | None, log_samples: bool) -> None:
    """Check that result files can be written: the harness only warns when it has failed to.

    Args:
        output_path: the folder for them, which may exist.
        log_samples: whether examples and answers are among them.

    Raises:
        UserError: the folder cannot be made, is something else, or is missing for the samples.
    """
    if output_path is None:
        if log_samples:
            raise UserError("log_samples needs a folder to write to: give --output-path.")
        return
    folder = writable_path(output_path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: choose another place for the results.")
