"""Meshes, axis rules, multi-host runs and the differences between JAX's versions."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Int, Shaped
from pydantic import Field

from clp_jax.arguments import checked
from clp_jax.errors import UserError
from clp_jax.files import cache_folder
from clp_jax.limits import MeshSize

T = TypeVar("T")

AXES = ("data", "fsdp", "sequence", "tensor")

# Mesh axes over which each named dimension is sharded; other dimensions are on every device.
RULES: Mapping[str, tuple[str, ...]] = {
    # Of parameters.
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    # Of activations.
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    "logits": ("tensor", "fsdp"),
}
# Those that each device holds whole where the mesh does not divide them.
MAY_STAY_WHOLE = ("vocab", "kv_heads")
BATCH = RULES["batch"]
ACTIVATIONS = (BATCH, RULES["length"])
BY_WIDTH = (("data",), RULES["length"], RULES["embed"])
VOCABULARY = RULES["logits"]

# Dense bfloat16 peak of one chip in FLOP/s, by the start of `device_kind` (vendors' data sheets).
PEAK_FLOPS: Mapping[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}

# Memory of a TPU chip in GiB, by the start of `device_kind` (vendor's data sheets).
MEMORY_GIB: Mapping[str, int] = {
    "TPU v4": 32,
    "TPU v5 lite": 16,
    "TPU v5e": 16,
    "TPU v5": 95,
    "TPU v6": 32,
}


def start_distributed() -> None:
    """Join the other processes of a multi-host run; does nothing on a single host.

    Slurm jobs and TPU slices of Kubernetes are recognised by their environment. The hosts of a
    Cloud TPU VM find each other only through their metadata server, which JAX queries if
    ``CLP_JAX_DISTRIBUTED`` is set, as ``scripts/tpu_vm.sh`` does. Any other launcher sets
    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``.

    Raises:
        UserError: the environment does not describe the processes, they do not find each other, or
            there is no device.
    """
    if jax.distributed.is_initialized():
        return
    env = os.environ
    if "JAX_COORDINATOR_ADDRESS" in env:
        try:
            count, index = int(env["JAX_NUM_PROCESSES"]), int(env["JAX_PROCESS_ID"])
        except (KeyError, ValueError):
            raise UserError(
                "JAX_COORDINATOR_ADDRESS is set, but JAX_NUM_PROCESSES or JAX_PROCESS_ID is not an "
                "integer: set both."
            ) from None
        _join(env["JAX_COORDINATOR_ADDRESS"], count, index)
    elif (
        "CLP_JAX_DISTRIBUTED" in env
        or "," in env.get("TPU_WORKER_HOSTNAMES", "")
        or env.get("SLURM_NTASKS", "1") not in ("", "1")
    ):
        _join()
    all_devices()


def _join(*where: Any) -> None:
    try:
        jax.distributed.initialize(*where)
    except Exception as error:  # Each launcher raises its own exceptions.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"The processes of this run do not find each other ({reason}): look at the JAX_, "
            "SLURM_ and TPU_ variables of the environment, or unset them for a single process."
        ) from None


def all_devices() -> list[jax.Device]:
    """The devices of all processes.

    Raises:
        UserError: the requested platform has no device.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200] or "its plugin is not installed"
        raise UserError(
            f"There is no device of JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')} "
            f"({reason}): unset it, or name a platform that exists here."
        ) from None


def backend_started() -> bool:
    """Whether JAX has taken the devices for this process, which a TPU does for one at a time."""
    return xla_bridge.backends_are_initialized()


def decided_by_first(decide: Callable[[], T]) -> T:
    """The first process's decision, a JSON value, sent to all; every process must call this.

    Shared storage may not look the same to all processes at the same time.

    Raises:
        UserError: in every process, if the decision fails in the first one.
    """
    if jax.process_count() == 1:
        return decide()
    payload, failure = b"", None
    if jax.process_index() == 0:
        try:
            payload = json.dumps({"value": decide()}).encode()
        except Exception as error:
            payload, failure = json.dumps({"error": str(error)}).encode(), error
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(payload))))
    sent = np.frombuffer(payload or bytes(size), np.uint8)
    received = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())
    if failure is not None:
        raise failure
    if "error" in received:
        raise UserError(received["error"])
    return received["value"]


def use_compilation_cache() -> None:
    """Keep compiled programs on disk between runs, unless the user has set a cache already."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))


@checked
def make_mesh(
    data: MeshSize = 1,
    fsdp: MeshSize = -1,
    tensor: MeshSize = 1,
    sequence: MeshSize = 1,
    *,
    devices: Annotated[Sequence[jax.Device], Field(min_length=1)] | None = None,
) -> Mesh:
    """Arrange devices (all of them by default) in a mesh with the axes of `AXES`.

    One of the sizes may be -1: it takes the remaining devices. With several TPU slices, or several
    machines with GPUs, the outermost axes span them and the inner axes stay within each, where
    connections are faster.

    Raises:
        UserError: the sizes do not multiply to the number of devices.
    """
    devices = all_devices() if devices is None else devices
    sizes = [data, fsdp, sequence, tensor]
    wanted = f"mesh data={data} fsdp={fsdp} tensor={tensor} sequence={sequence}"
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"{wanted}: sizes must be positive, and only one of them may be -1.")
    if -1 in sizes:
        known = -int(np.prod(sizes))
        if len(devices) % known:
            raise UserError(f"{wanted} does not divide the {len(devices)} available devices.")
        sizes[sizes.index(-1)] = len(devices) // known
    if np.prod(sizes) != len(devices):
        raise UserError(f"{wanted} needs {np.prod(sizes)} devices, but there are {len(devices)}.")
    types = (AxisType.Auto,) * len(AXES)
    left = slice_count(devices)
    if left == 1:
        return jax.make_mesh(tuple(sizes), AXES, axis_types=types, devices=devices)
    between = []
    for size in sizes:
        between.append(math.gcd(size, left))
        left //= between[-1]
    within = [size // slices for size, slices in zip(sizes, between, strict=True)]
    return Mesh(
        mesh_utils.create_hybrid_device_mesh(within, between, devices), AXES, axis_types=types
    )


def slice_count(devices: Sequence[jax.Device]) -> int:
    """Number of TPU slices, or machines with GPUs, of the devices; 1 if they do not report it."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def memory_of(device: jax.Device) -> int | None:
    """Bytes of memory of a device, or None if neither it nor a data sheet gives them (CPUs)."""
    for kind, gibibytes in MEMORY_GIB.items():
        if device.device_kind.startswith(kind):
            return gibibytes * 2**30
    local = next(
        (one for one in jax.local_devices() if one.device_kind == device.device_kind), None
    )
    return ((local and local.memory_stats()) or {}).get("bytes_limit")


def single_device_mesh() -> Mesh:
    """The mesh of this process's first device."""
    all_devices()
    return make_mesh(devices=jax.local_devices()[:1])


def inference_dtype(name: str | None) -> DTypeLike:
    """The dtype of a model's computation in inference.

    By default bfloat16 on TPUs and GPUs, as in training, and float32 on CPUs, which do not compute
    faster in bfloat16. Softmax, norms and logits are float32 in either case.

    Args:
        name: ``float32``, ``bfloat16``, or None for the default.

    Raises:
        UserError: the name is another one.
    """
    if name is None:
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype is {name!r}: compute in float32 or bfloat16.")
    return jnp.dtype(name)


def sharding_for(mesh: Mesh, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
    """The sharding of a tensor whose dimensions have the names ``axes``, by `RULES`.

    A vocabulary that the mesh does not divide (50,257 rows are common) stays whole, and so do the
    heads of keys and values, of which there may be fewer than devices.

    Raises:
        UserError: the mesh does not divide another dimension.
        ValueError: the rules shard two dimensions over the same axis.
    """
    spec: list[tuple[str, ...] | None] = []
    for name, size in zip(axes, shape, strict=True):
        over = RULES.get(name)
        devices = math.prod(mesh.shape[axis] for axis in over or ())
        if over is not None and size % devices:
            if name not in MAY_STAY_WHOLE:
                raise UserError(
                    f"The mesh axis {'*'.join(over)}={devices} does not divide the "
                    f"model's {name} dimension of {size}: choose a divisor of {size}."
                )
            over = None
        spec.append(over)
    used = [axis for over in spec if over for axis in over]
    if len(set(used)) < len(used):
        raise ValueError(f"RULES shard {', '.join(axes)} over the same axis: {', '.join(used)}.")
    return NamedSharding(mesh, PartitionSpec(*spec))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose leading axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def batch_divisor(mesh: Mesh) -> int:
    """The number of which every batch size must be a multiple."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH]))


def shard_activations(x: Shaped[Array, "batch length ..."]) -> Shaped[Array, "batch length ..."]:
    """Inside a jitted function under ``jax.set_mesh``, keep rows and positions sharded.

    Otherwise the compiler may follow the parameters and shard activations by their width. An axis
    that the mesh does not divide stays whole; without a mesh, this does nothing.
    """
    return _spread(x, ACTIVATIONS)


def shard_by_width(x: Shaped[Array, "batch length embed"]) -> Shaped[Array, "batch length embed"]:
    """As `shard_activations`, but devices that share parameters each hold a part of the width.

    This is the layout of rows that are read from a table of parameters.
    """
    return _spread(x, BY_WIDTH)


def _spread(x: Array, dimensions: Sequence[tuple[str, ...]]) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = [
        axes if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None
        for axes, size in zip(dimensions, x.shape, strict=False)
    ]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def constrain(x: Shaped[Array, "..."], *axes: str | tuple[str, ...] | None) -> Shaped[Array, "..."]:
    """Inside a jitted function under ``jax.set_mesh``, shard the first dimensions over ``axes``.

    The mesh need not divide them. Other dimensions stay whole; without a mesh, this does nothing.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def common_size(size: int, axis: str) -> int:
    """Devices along a mesh axis of ``jax.set_mesh``, or 1 if they do not divide ``size``."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.shape[axis]
    return devices if size % devices == 0 else 1


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " local"]:
    """The rows of a batch that the devices of this process hold, in ascending order.

    Processes hold the same rows if their devices share the work on a sequence.

    Args:
        mesh: The mesh.
        batch_size: Sequences of the batch, a multiple of `batch_divisor`.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = np.arange(batch_size)
    return np.unique(np.concatenate([rows[index] for index in indices]))


def shard_batch(rows: Shaped[np.ndarray, "local ..."], mesh: Mesh) -> Shaped[Array, "batch ..."]:
    """Join the `local_rows` that each process holds into one batch over the mesh."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), rows)


def to_host(array: Shaped[Array, "..."]) -> Shaped[np.ndarray, "..."]:
    """The whole array in this host's memory; every process must call it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 peak in FLOP/s of a kind of device, or None if it is unknown (CPUs)."""
    matches = [kind for kind in PEAK_FLOPS if device_kind.startswith(kind)]
    return PEAK_FLOPS[max(matches, key=len)] if matches else None
