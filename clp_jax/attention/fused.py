"""Attention without an array of all scores: the kernel for the devices, and each device's part."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from clp_jax.attention import cudnn, splash, triton
from clp_jax.attention.blockwise import attend_blockwise
from clp_jax.mesh import BATCH

POSITIONS, HEADS = "sequence", "tensor"


def attend_fused(
    query: Float[Array, "batch length heads dim"],
    key: Float[Array, "batch length heads dim"],
    value: Float[Array, "batch length heads dim"],
    *,
    scale: float | Float[Array, ""],
    slopes: Float[Array | np.ndarray, " heads"] | None,
    segments: Int[Array, "batch length"] | None,
) -> Float[Array, "batch length heads dim"]:
    """Causal attention of whole rows to themselves; the arguments are those of `attend`.

    The devices of the current mesh decide: TPUs use the splash kernels, GPUs cuDNN where
    `cudnn.serves` and Triton kernels otherwise, and other devices plain XLA operations, as does a
    call without a mesh. Each device computes its own rows, heads and queries; the keys of rows that
    are spread over devices are gathered first. Rows and heads that an axis of the mesh does not
    divide are computed by all of its devices.
    """
    # The kernels take no scale. This rounds once more, or not if the scale is a power of two.
    query = (query.astype(jnp.float32) * scale).astype(query.dtype)
    slopes = None if slopes is None else jnp.asarray(slopes)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return attend_blockwise(query, key, value, slopes=slopes, segments=segments, start=0)

    batch, length, heads, _ = query.shape
    rows = BATCH if batch % math.prod(mesh.shape[axis] for axis in BATCH) == 0 else None
    spread = None if heads % mesh.shape[HEADS] else HEADS
    devices = platform(mesh)
    multiple = {"tpu": splash.LANES, "gpu": triton.MULTIPLE}.get(devices, 1)
    # The causal mask hides the padding.
    padding = -length % (mesh.shape[POSITIONS] * multiple)
    arrays: dict[str, Any] = {
        name: jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)])
        for name, x in (("query", query), ("key", key), ("value", value))
    }
    specs: dict[str, Any] = dict.fromkeys(arrays, PartitionSpec(rows, POSITIONS, spread))
    if segments is not None:
        arrays["segments"] = jnp.pad(segments, [(0, 0), (0, padding)])
        specs["segments"] = PartitionSpec(rows, POSITIONS)
    if slopes is not None:
        arrays["slopes"], specs["slopes"] = slopes, PartitionSpec(spread)
    if devices == "tpu":
        kernel = splash.make_kernel(
            length + padding,
            heads // (mesh.shape[HEADS] if spread else 1),
            shards=mesh.shape[POSITIONS],
        )
        of_queries = NamedSharding(mesh, PartitionSpec(None, POSITIONS))
        arrays["kernel"], specs["kernel"] = kernel, kernel.manual_sharding_spec(of_queries)

    attended = jax.shard_map(
        partial(_attend_share, devices=devices, shards=mesh.shape[POSITIONS]),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=specs["query"],
        check_vma=False,
    )(arrays)
    return attended[:, :length]


def platform(mesh: AbstractMesh) -> str:
    """The platform of the mesh's devices: `cpu`, `gpu` or `tpu`, or "" if they differ."""
    return "" if mesh.abstract_device is None else mesh.abstract_device.platform


def _attend_share(arrays: dict[str, Any], *, devices: str, shards: int) -> Array:
    """One device's part of the attention, [rows, queries, heads, dim]."""
    options: dict[str, Any] = {name: arrays.get(name) for name in ("slopes", "segments")}
    options["start"] = 0
    query, key, value = arrays["query"], arrays["key"], arrays["value"]
    if shards > 1:
        gather = partial(jax.lax.all_gather, axis_name=POSITIONS, axis=1, tiled=True)
        key, value = gather(key), gather(value)
        options |= {
            "segments": None if options["segments"] is None else gather(options["segments"]),
            "start": jax.lax.axis_index(POSITIONS) * query.shape[1],
        }
    match devices:
        case "tpu":
            return splash.attend_splash(query, key, value, kernel=arrays["kernel"], **options)
        case "gpu" if cudnn.serves(query, **options):
            return cudnn.attend_cudnn(query, key, value, slopes=options["slopes"])
        case "gpu":
            return triton.attend_triton(query, key, value, **options)
        case _:
            return attend_blockwise(query, key, value, **options)
