"""The state of a run at a step: parameters, optimizer and data position, saved as one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from clp_jax.errors import UserError

CHECKPOINTS = "checkpoints"


class RunCheckpoints:
    """The checkpoints of a run folder, written in the background while the training goes on.

    A checkpoint is the folder ``checkpoints/STEP`` with the items ``params`` (a nested dict of
    arrays), ``optimizer`` (the optimizer's state) and ``data`` (JSON). It is written under another
    name and renamed when it is whole; each process reads and writes the parts that its own devices
    hold. Use it as a context: leaving it waits for the last write.

    Args:
        run_folder: Folder of the run; ``checkpoints`` is made in it.
        keep: How many of the newest checkpoints are kept.
    """

    def __init__(self, run_folder: str | Path, keep: int):
        self._manager = _manager(run_folder, max_to_keep=keep, cleanup_tmp_directories=True)

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    def save(self, step: int, params: PyTree, optimizer: PyTree, data: dict[str, Any]) -> None:
        """Copy the arrays to the host, then write them in the background.

        The arrays may be donated as soon as this returns.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            optimizer=ocp.args.StandardSave(optimizer),
            data=ocp.args.JsonSave(data),
        )
        self._manager.save(step, args=items, force=True)

    def restore(
        self, step: int, abstract_params: PyTree, abstract_optimizer: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, Any]]:
        """Read a checkpoint straight onto the devices that the abstract arrays name.

        Args:
            step: Step of the checkpoint.
            abstract_params: A ``jax.ShapeDtypeStruct`` with a sharding for each parameter; the mesh
                may be another one than that of the run that wrote it.
            abstract_optimizer: The same for the state of the optimizer.

        Raises:
            UserError: the checkpoint is missing, damaged, or of another model.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(abstract_params),
            optimizer=ocp.args.StandardRestore(abstract_optimizer),
            data=ocp.args.JsonRestore(),
        )
        with _told(self._manager, step):
            state = self._manager.restore(step, args=items)
        return state["params"], state["optimizer"], state["data"]


def latest_step(run_folder: str | Path) -> int | None:
    """Step of the newest whole checkpoint of a run, or None."""
    if not (Path(run_folder) / CHECKPOINTS).is_dir():
        return None
    with _manager(run_folder, read_only=True) as manager:
        return manager.latest_step()


def restore_params(
    run_folder: str | Path,
    abstract_params: PyTree,
    step: int | None = None,
    *,
    dtype: DTypeLike | None = None,
) -> PyTree:
    """The parameters of a run's checkpoint, the newest one if ``step`` is None.

    The run may be training meanwhile.

    Args:
        run_folder: Folder of the run.
        abstract_params: A ``jax.ShapeDtypeStruct`` with a sharding for each parameter.
        step: Step of the checkpoint.
        dtype: Type of the parameters; None keeps that of the stored ones.

    Raises:
        UserError: the run has no checkpoint, or it is damaged or of another model.
    """
    newest = latest_step(run_folder) if step is None else step
    if newest is None:
        raise UserError(f"{run_folder} holds no whole checkpoint: name the folder of a run.")
    with _manager(run_folder, read_only=True) as manager, _told(manager, newest) as folder:
        with ocp.StandardCheckpointer() as reader:
            stored = reader.metadata(folder / "params").item_metadata.tree
        targets = jax.tree.map(
            lambda leaf, found: jax.ShapeDtypeStruct(
                leaf.shape, dtype or found.dtype, sharding=leaf.sharding
            ),
            abstract_params,
            stored,
        )
        items = ocp.args.Composite(params=ocp.args.StandardRestore(targets))
        return manager.restore(newest, args=items)["params"]


def save_params(run_folder: str | Path, params: PyTree) -> None:
    """Write parameters without a training state, as step 0; ``restore_params`` reads them."""
    with _manager(run_folder) as manager:
        manager.save(0, args=ocp.args.Composite(params=ocp.args.StandardSave(params)))


def _manager(run_folder: str | Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        Path(run_folder).absolute() / CHECKPOINTS,
        options=ocp.CheckpointManagerOptions(**options),
    )


@contextmanager
def _told(manager: ocp.CheckpointManager, step: int) -> Iterator[Path]:
    """Yield the folder of a checkpoint; what goes wrong in reading it is told in a sentence."""
    folder = Path(manager.directory) / str(step)
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: the run has no checkpoint of that step.")
    try:
        yield folder
    except Exception as error:  # Orbax and TensorStore raise exceptions of nearly every kind.
        raise UserError(
            f"{folder} is damaged or of another model ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}): remove it to go on from an older checkpoint."
        ) from error
