"""The mesh of a run: its configured sizes, or sizes that suit the devices and the model."""

import math
from collections.abc import Sequence

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from clp_jax.config import RunConfig
from clp_jax.errors import UserError
from clp_jax.mesh import all_devices, make_mesh, memory_of, slice_count
from clp_jax.models import DecoderConfig, abstract_model
from clp_jax.train.optimizer import trainable

VALUE_BYTES = 4
"""Bytes per parameter, in float32."""
TRAINED_BYTES = 12
"""Bytes more per trained parameter: its gradient and the optimizer's two means, in float32."""
COMFORTABLE = 0.6
"""Share of a device's memory up to which an estimate counts as fitting."""
LAYER_VALUES = 17
"""Values that a layer keeps per token and hidden unit (Korthikanti et al. 2022, equation 1,
without the attention scores)."""


def run_mesh(
    config: RunConfig, decoder: DecoderConfig, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The configured mesh; the sizes that `mesh.auto` picks are printed with the reason.

    Args:
        config: The configuration.
        decoder: The model's configuration.
        devices: The devices; all by default.

    Raises:
        UserError: the devices cannot be arranged so, or no sizes suit the model and the batch.
    """
    devices = all_devices() if devices is None else devices
    if not config.mesh.auto:
        return make_mesh(**config.mesh.sizes, devices=devices)
    sizes, reason = pick_sizes(
        config,
        decoder,
        devices=len(devices),
        slices=slice_count(devices),
        memory=memory_of(devices[0]),
    )
    if jax.process_index() == 0:
        picked = " ".join(f"{axis}={size}" for axis, size in sizes.items())
        print(f"mesh auto: {picked}, since {reason}.", flush=True)
    return make_mesh(**sizes, devices=devices)


def pick_sizes(
    config: RunConfig, decoder: DecoderConfig, *, devices: int, slices: int, memory: int | None
) -> tuple[dict[str, int], str]:
    """The sizes that `mesh.auto` picks, and the reason as a clause.

    As many devices as the batch allows get their own sequences; the remaining factor splits the
    heads, and only then the positions. Devices with their own sequences hold copies of the model if
    a copy with its optimizer fits comfortably into one device; otherwise they share the parameters
    within each slice.

    Args:
        config: The run's configuration.
        decoder: The model's configuration.
        devices: Number of devices.
        slices: Number of slices that they form.
        memory: Bytes of one device, or None if not known.

    Raises:
        UserError: the batch, the heads and the positions together cannot occupy all devices.
    """
    train, length = config.train, config.data.sequence_length
    rows = train.batch_size // train.gradient_accumulation_steps
    batch = math.gcd(rows, devices)
    tensor = math.gcd(devices // batch, decoder.num_heads, decoder.mlp_size)
    sequence = devices // batch // tensor
    if length % sequence:
        raise UserError(
            f"mesh.auto cannot use all {devices} devices: make train.batch_size / "
            f"train.gradient_accumulation_steps, which is {rows}, a multiple of {devices}."
        )
    params = nnx.to_pure_dict(nnx.state(abstract_model(decoder)))
    held = VALUE_BYTES * _count(params) + TRAINED_BYTES * _count(
        trainable(params, config.optimizer)
    )
    kept = 1 if train.remat == "full" else LAYER_VALUES
    tokens = rows // batch * length // sequence
    width = 4 if train.dtype == "float32" else 2
    activations = tokens * decoder.hidden_size * width * kept * decoder.num_layers // tensor
    needed = held // tensor + activations
    need = f"a copy of the model with its optimizer and activations needs {needed / 2**30:,.1f} GiB"
    if memory is not None and needed <= COMFORTABLE * memory:
        data, fsdp = batch, 1
        reason = f"{need}, which fits into the {memory / 2**30:,.0f} GiB of a device"
    else:
        fsdp = math.gcd(batch // math.gcd(batch, slices), decoder.hidden_size)
        data = batch // fsdp
        reason = f"{need}, " + (
            "and the memory of a device is not known"
            if memory is None
            else f"too much for the {memory / 2**30:,.0f} GiB of a device"
        )
    if batch < devices:
        reason += f", and {rows} sequences at a time occupy only {batch} of {devices} devices"
    return {"data": data, "fsdp": fsdp, "sequence": sequence, "tensor": tensor}, reason


def _count(params: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
