"""The state of a run at a step: parameters, optimizer and data position, saved together."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.typing import DTypeLike
from jaxtyping import PyTree

from clp_jax.checkpoint.checksums import SUMS, find_damage, write_checksums
from clp_jax.checkpoint.run_folder import CHECKPOINTS
from clp_jax.errors import UserError
from clp_jax.files import is_address
from clp_jax.mesh import decided_by_first

DAMAGED = ".damaged"
UNFINISHED = ".orbax-checkpoint-tmp"


class RunCheckpoints:
    """Writes the checkpoints of a run folder in the background while training continues.

    A checkpoint is the folder ``checkpoints/STEP`` with the items ``params`` (a nested dict of
    arrays), ``optimizer`` (the optimizer's state) and ``data`` (JSON), and the checksums of its
    files. It is written under another name and renamed when it is complete. Each process writes the
    parts on its own devices. Use it as a context manager: leaving it waits for the last write.

    Args:
        run_folder: Folder of the run; ``checkpoints`` is made in it.
        keep: How many of the newest checkpoints to keep.
        keep_every: Also keep every checkpoint whose step is a multiple of this; 0 for none.
        keep_best: Also keep this many of the checkpoints with the lowest loss.
        losses: The validation loss, or NaN, by step; may grow during the run.
    """

    def __init__(
        self,
        run_folder: str | Path,
        keep: int,
        *,
        keep_every: int = 0,
        keep_best: int = 0,
        losses: Mapping[int, float] | None = None,
    ):
        self._writing: int | None = None
        self._manager = _manager(
            run_folder,
            preservation_policy=_Kept(
                keep, keep_every, keep_best, {} if losses is None else losses
            ),
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
        )

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with self._reporting_writes():
                self._manager.close()
        except UserError:
            if kind is None:  # Otherwise another error ends the run, and caused this one.
                raise

    def save(self, step: int, params: PyTree, optimizer: PyTree, data: dict[str, Any]) -> None:
        """Copy the arrays to the host, then write them in the background.

        The arrays may be donated as soon as this returns.

        Raises:
            UserError: this checkpoint or the one before it cannot be written.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            optimizer=ocp.args.StandardSave(optimizer),
            data=ocp.args.JsonSave(data),
        )
        with self._reporting_writes():
            self._manager.wait_until_finished()
            self._writing = step
            self._manager.save(step, args=items, force=True)

    def check(self) -> None:
        """Check whether the background write has succeeded; call it often.

        Raises:
            UserError: the checkpoint cannot be written.
        """
        if self._writing is not None and not self._manager.is_saving_in_progress():
            with self._reporting_writes():
                self._manager.wait_until_finished()
            self._writing = None

    def wait(self) -> None:
        """Wait until all checkpoints are written."""
        with self._reporting_writes():
            self._manager.wait_until_finished()

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints after a step, so that this one is the newest."""
        self.wait()
        for later in self._manager.all_steps():
            if later > step:
                self._manager.delete(later)

    def reload(self) -> None:
        """Reread the folder after `restore_newest` has renamed damaged checkpoints."""
        self._manager.reload()

    def _seal(self) -> None:
        """Write the sums; Orbax calls this on the first process, after writing and before renaming.

        Objects in a bucket are never half-written, and their store has its own checksums.
        """
        if is_address(str(self._manager.directory)):
            return
        (folder,) = Path(self._manager.directory).glob(f"{self._writing}{UNFINISHED}*")
        write_checksums(folder)

    @contextmanager
    def _reporting_writes(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise exceptions of nearly every kind.
            raise UserError(
                f"{self._manager.directory}/{self._writing} cannot be written ({_reason(error)}): "
                "fix that and resume the run from the checkpoint before it."
            ) from error


@dataclass(frozen=True)
class _Kept(ocp.checkpoint_managers.PreservationPolicy):
    """Which checkpoints are kept; see `RunCheckpoints`."""

    newest: int
    every: int
    best: int
    losses: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        losses = [(self.losses.get(step, math.nan), step) for step in steps]
        measured = sorted((loss, step) for loss, step in losses if math.isfinite(loss))
        kept = {*steps[-self.newest :], *(step for _, step in measured[: self.best])}
        return [step in kept or (self.every > 0 and step % self.every == 0) for step in steps]


def restore_newest(
    run_folder: str | Path, abstract_params: PyTree, abstract_optimizer: PyTree
) -> tuple[int, PyTree, PyTree, dict[str, Any]] | None:
    """Read the newest complete checkpoint of a run directly onto the devices.

    On a disk, a damaged checkpoint is renamed to ``STEP.damaged``, and the one before it is used. A
    checkpoint without sums, such as a copy from a bucket, is reported and used. The first process
    decides which checkpoint it is. Every process of a run must call this function.

    Args:
        run_folder: Folder of the run.
        abstract_params: A ``jax.ShapeDtypeStruct`` with a sharding for each parameter; the mesh may
            differ from that of the run that wrote it.
        abstract_optimizer: The same for the state of the optimizer.

    Returns:
        Its step, parameters, optimizer state and data; None if the run has no checkpoint.

    Raises:
        UserError: all checkpoints are damaged, or they are from another model.
    """
    items = ocp.args.Composite(
        params=ocp.args.StandardRestore(abstract_params),
        optimizer=ocp.args.StandardRestore(abstract_optimizer),
        data=ocp.args.JsonRestore(),
    )
    wanted = {"params": abstract_params, "optimizer": abstract_optimizer}
    while (step := _newest(run_folder)) is not None:
        folder = _root(run_folder) / str(step)
        damage = None if is_address(run_folder) else _damage(folder)
        if not _anywhere(damage is not None):
            with _manager(run_folder, read_only=True) as manager, _reading(manager, step):
                _refuse_other_model(folder, wanted)
                state = manager.restore(step, args=items)
            return step, state["params"], state["optimizer"], state["data"]
        _set_aside(folder, damage)
    if _root(run_folder).is_dir() and any(_root(run_folder).glob(f"*{DAMAGED}")):
        raise UserError(
            f"All checkpoints of {run_folder} are damaged: start a new run in another folder."
        )
    return None


def _newest(run_folder: str | Path) -> int | None:
    return decided_by_first(lambda: latest_step(run_folder))


def _damage(folder: Path) -> str | None:
    """A file of the checkpoint that has changed since it was written, if its sums are known.

    Each process checks a part of the files.
    """
    if not decided_by_first((folder / SUMS).exists):
        if jax.process_index() == 0:
            print(f"{folder} is unverified: {SUMS} is missing, as in a copy from a bucket.")
        return None
    return find_damage(folder, part=jax.process_index(), parts=jax.process_count())


def _refuse_other_model(folder: Any, wanted: Mapping[str, PyTree]) -> None:
    """Compare the arrays of a checkpoint by name and shape before any is read.

    Orbax would report them in many kinds of exceptions.

    Raises:
        UserError: they differ.
    """
    for item, tree in wanted.items():
        with ocp.StandardCheckpointer() as reader:
            found = _shapes(reader.metadata(folder / item).item_metadata.tree)
        for name, shape in (ours := _shapes(tree)).items():
            if found.get(name) != shape:
                has = f"has the shape {found[name]}, not {shape}" if name in found else "is missing"
                raise UserError(f"{folder} is from another model: {name} of {item} {has}.")
        if more := next(iter(found.keys() - ours.keys()), None):
            raise UserError(f"{folder} is from another model: it also has {more} of {item}.")


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays by path; entries for which Orbax stores nothing are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _anywhere(found: bool) -> bool:
    """Whether any of the processes found it."""
    return bool(multihost_utils.process_allgather(np.array([found])).any())


def _set_aside(folder: Path, damage: str | None) -> None:
    """Rename a damaged checkpoint so that it is no longer used, and report it."""
    aside = folder.with_name(folder.name + DAMAGED)
    if damage is not None:
        print(
            f"{folder} is damaged ({damage}): it is renamed to {aside.name}, and the run resumes "
            "from the checkpoint before it.",
            flush=True,
        )
    if jax.process_index() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    multihost_utils.sync_global_devices("a damaged checkpoint is set aside")


def latest_step(run_folder: str | Path) -> int | None:
    """Step of the newest complete checkpoint of a run, or None. One process may call it alone."""
    return max(ocp.utils.checkpoint_steps(_root(run_folder)), default=None)


def restore_params(
    run_folder: str | Path,
    abstract_params: PyTree,
    step: int | None = None,
    *,
    dtype: DTypeLike | None = None,
) -> PyTree:
    """The parameters of a run's checkpoint, the newest one if ``step`` is None.

    The run may be training at the same time.

    Args:
        run_folder: Folder of the run.
        abstract_params: A ``jax.ShapeDtypeStruct`` with a sharding for each parameter.
        step: Step of the checkpoint.
        dtype: Type of the parameters; None keeps the stored type.

    Raises:
        UserError: the run has no checkpoint, or it is damaged or from another model.
    """
    newest = _newest(run_folder) if step is None else step
    if newest is None:
        raise UserError(f"{run_folder} holds no complete checkpoint: name a run folder.")
    with _manager(run_folder, read_only=True) as manager, _reading(manager, newest) as folder:
        if decided_by_first((folder / SUMS).exists):  # `save_params` writes none.
            _refuse_damage(Path(folder))
        _refuse_other_model(folder, {"params": abstract_params})
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
        _root(run_folder),
        options=ocp.CheckpointManagerOptions(**options),
    )


@contextmanager
def _reading(manager: ocp.CheckpointManager, step: int) -> Iterator[epath.Path]:
    """Yield the folder of a checkpoint; an error in reading it is reported in one sentence."""
    folder = manager.directory / str(step)
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: the run has no checkpoint at that step.")
    try:
        yield folder
    except (UserError, jax.errors.JaxRuntimeError):  # The latter: too little memory on a device.
        raise
    except Exception as error:  # Orbax and TensorStore raise exceptions of nearly every kind.
        raise UserError(
            f"{folder} is damaged or from another model ({_reason(error)}): remove it to continue "
            "from an older checkpoint."
        ) from error


def _refuse_damage(folder: Path) -> None:
    part, parts = jax.process_index(), jax.process_count()
    damage = find_damage(folder, within="params/", part=part, parts=parts)
    if _anywhere(damage is not None):
        raise UserError(
            f"{folder} is damaged ({damage or 'another file'} has changed since it was written): "
            "resume the run, which continues from the checkpoint before it."
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "No space left on device" in text:
        return "no space is left on the device"
    return f"{type(error).__name__}: {text[:200]}"


def _root(run_folder: str | Path) -> Any:
    """The folder of the checkpoints, on a disk or in a bucket."""
    place = epath.Path(run_folder) if is_address(run_folder) else Path(run_folder).absolute()
    return place / CHECKPOINTS
