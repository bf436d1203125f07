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
    key: Float[Array, "batch length kv_heads dim"],
    value: Float[Array, "batch length kv_heads dim"],
    *,
    scale: float | Float[Array, ""],
    slopes: Float[Array | np.ndarray, " heads"] | None,
    window: int | None,
    softcap: float | None,
    segments: Int[Array, "batch length"] | None,
) -> Float[Array, "batch length heads dim"]:
    """Causal attention of whole rows to themselves; the arguments are those of `attend`.

    The devices of the current mesh decide: TPUs use the splash kernels, GPUs cuDNN where
    `cudnn.serves` and Triton kernels otherwise, and other devices plain XLA operations, as does a
    call without a mesh. Each device computes its own rows, heads and queries; the keys of rows that
    are spread over devices are gathered first. Rows and heads that an axis of the mesh does not
    divide are computed by all of its devices. Where it divides the heads of the queries but not
    those of the keys, each device has all keys and takes those of its queries.
    """
    # The kernels take no scale. This rounds once more, or not if the scale is a power of two.
    query = (query.astype(jnp.float32) * scale).astype(query.dtype)
    slopes = None if slopes is None else jnp.asarray(slopes)
    mesh = jax.sharding.get_abstract_mesh()
    kind: dict[str, Any] = {"window": window, "softcap": softcap}
    if mesh.empty:
        return attend_blockwise(query, key, value, slopes=slopes, segments=segments, **kind)

    batch, length, heads, _ = query.shape
    rows = BATCH if batch % math.prod(mesh.shape[axis] for axis in BATCH) == 0 else None
    spread, keys_spread = (None if x.shape[2] % mesh.shape[HEADS] else HEADS for x in (query, key))
    devices = platform(mesh)
    multiple = {"tpu": splash.LANES, "gpu": triton.MULTIPLE}.get(devices, 1)
    # The causal mask hides the padding.
    padding = -length % (mesh.shape[POSITIONS] * multiple)
    arrays: dict[str, Any] = {
        name: jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)])
        for name, x in (("query", query), ("key", key), ("value", value))
    }
    specs: dict[str, Any] = dict.fromkeys(arrays, PartitionSpec(rows, POSITIONS, keys_spread))
    specs["query"] = PartitionSpec(rows, POSITIONS, spread)
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
            **kind,
        )
        of_queries = NamedSharding(mesh, PartitionSpec(None, POSITIONS))
        arrays["kernel"], specs["kernel"] = kernel, kernel.manual_sharding_spec(of_queries)

    attended = jax.shard_map(
        partial(
            _attend_share,
            devices=devices,
            shards=mesh.shape[POSITIONS],
            take_keys=spread is not None and keys_spread is None,
            kind=kind,
        ),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=specs["query"],
        check_vma=False,
    )(arrays)
    return attended[:, :length]


def platform(mesh: AbstractMesh) -> str:
    """The platform of the mesh's devices: `cpu`, `gpu` or `tpu`, or "" if they differ."""
    return "" if mesh.abstract_device is None else mesh.abstract_device.platform


def _attend_share(
    arrays: dict[str, Any],
    *,
    devices: str,
    shards: int,
    take_keys: bool,
    kind: dict[str, Any],
) -> Array:
    """One device's part of the attention, [rows, queries, heads, dim]."""
    options: dict[str, Any] = {name: arrays.get(name) for name in ("slopes", "segments")}
    options["start"] = 0
    query, key, value = arrays["query"], arrays["key"], arrays["value"]
    if take_keys:
        key, value = (_of_queries(x, query.shape[2]) for x in (key, value))
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
        case "gpu" if cudnn.serves(query, **options, **kind):
            return cudnn.attend_cudnn(
                query, key, value, slopes=options["slopes"], window=kind["window"]
            )
        case "gpu":
            return triton.attend_triton(query, key, value, **options, **kind)
        case _:
            return attend_blockwise(query, key, value, **options, **kind)


def _of_queries(
    keys: Float[Array, "rows length all_kv_heads dim"], heads: int
) -> Float[Array, "rows length kv_heads dim"]:
    """The heads of keys, or values, for the ``heads`` heads of queries of this device.

    They serve equally many successive heads of queries; one that serves more is there twice.
    """
    served = heads * jax.lax.axis_size(HEADS) // keys.shape[2]
    together = math.gcd(heads, served)
    first = jax.lax.axis_index(HEADS) * heads
    return jnp.take(keys, (first + jnp.arange(0, heads, together)) // served, axis=2)
