"""JAX and its devices, started in a process of its own, which may hang or crash."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clp_jax.doctor.checks import Check, one_line

PATIENCE = 120.0
"""Seconds that JAX may take to start and to compute a sum."""

PROBE = "from clp_jax.doctor.devices import print_devices; print_devices()"
ATTACHED: Mapping[str, tuple[str, ...]] = {
    "tpu": ("dev/accel[0-9]*", "dev/vfio/[0-9]*"),
    "cuda": ("dev/nvidia[0-9]*",),
}
"""Device files of the accelerators, by the platform of JAX that uses them."""

BUSY = ("in use", "busy", "lockfile")
"""What the TPU's library says when another process has the TPU."""


def check_devices() -> Iterator[Check]:
    """What JAX computes on, and whether it does."""
    platforms = os.environ.get("JAX_PLATFORMS") or _attached()
    found = find_devices() if _started() else _probe(platforms)
    if "error" in found:
        yield Check("devices", "none", _explain(found["error"], platforms))
        return
    count, processes, memory = found["count"], found["processes"], found["memory_bytes"]
    text = f"{count} x {found['kind']} ({found['backend']})"
    if memory:
        text += f", {memory / 2**30:.1f} GiB each"
    yield Check("devices", text, facts=found)
    shape = f"{found['shape']}, " if found["shape"] else ""
    yield Check(
        "topology",
        f"{shape}slices or machines: {found['slices']}, processes: {processes}, "
        f"devices of this process: {found['local']}",
    )


def find_devices() -> dict[str, Any]:
    """The devices of all processes, after a sum over all of them.

    Raises:
        UserError: there is none, or the processes do not find each other.
    """
    import jax
    import jax.numpy as jnp

    from clp_jax.mesh import (
        all_devices,
        batch_sharding,
        make_mesh,
        memory_of,
        replicated,
        slice_count,
        start_distributed,
    )

    start_distributed()
    devices, mesh = all_devices(), make_mesh()
    count = len(devices)
    ones = jax.jit(lambda: jnp.ones((count, 128)), out_shardings=batch_sharding(mesh))()
    total = float(jax.jit(jnp.sum, out_shardings=replicated(mesh))(ones))
    if total != 128 * count:
        return {"error": f"the sum of {128 * count} ones over all devices is {total:g}"}
    return {
        "backend": jax.default_backend(),
        "kind": devices[0].device_kind,
        "count": count,
        "local": jax.local_device_count(),
        "processes": jax.process_count(),
        "slices": slice_count(devices),
        "shape": _shape([device.coords for device in devices if hasattr(device, "coords")]),
        "memory_bytes": memory_of(devices[0]),
    }


def _shape(coords: Sequence[Sequence[int]]) -> str:
    """Chips along each axis of a TPU slice, such as ``2x4x1``; empty for other devices."""
    return "x".join(str(max(axis) + 1) for axis in zip(*coords, strict=True))


def print_devices() -> None:
    """Print `find_devices`, or the error, as JSON in the last line of the standard output."""
    try:
        found = find_devices()
    except Exception as error:  # Of a driver or a plugin; a `UserError` keeps it as its context.
        found = {"error": one_line(error.__context__ or "") or one_line(error)}
    print("\n" + json.dumps(found), flush=True)
    os._exit(0)  # Other processes of a run that has failed would be waited for.


def _started() -> bool:
    """Whether JAX has its devices in this process already."""
    if "jax" not in sys.modules:
        return False
    from clp_jax.mesh import backend_started

    return backend_started()


def _attached() -> str:
    """The platforms whose devices are on this machine, for ``JAX_PLATFORMS``; empty if none.

    JAX itself would fall back to the CPU in silence.
    """
    root = Path("/")
    return ",".join(
        platform
        for platform, globs in ATTACHED.items()
        if any(next(root.glob(pattern), None) for pattern in globs)
    )


def _probe(platforms: str) -> dict[str, Any]:
    """What `print_devices` prints in another process.

    A process that waits for a driver cannot be killed, so its end is not waited for.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROBE],
        env=os.environ | {"JAX_PLATFORMS": platforms},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        printed, errors = process.communicate(timeout=PATIENCE)
        return json.loads(printed.splitlines()[-1])
    except subprocess.TimeoutExpired:
        process.kill()
        return {"error": f"no answer within {PATIENCE:g} seconds"}
    except (ValueError, IndexError):
        last = errors.strip().splitlines()[-1:]
        return {"error": one_line(": ".join([f"exit status {process.returncode}", *last]))}


def _explain(error: str, platforms: str) -> str:
    """A sentence about an error and what to do."""
    if any(word in error.lower() for word in BUSY):
        fix = (
            "another process uses the TPU: end it (`sudo lsof -w /dev/accel* /dev/vfio/*` names "
            "it) and try again"
        )
    elif error.startswith("no answer"):
        fix = (
            "check all hosts of a slice at the same time, and end other processes that use the "
            "devices"
        )
    else:
        extra = {"tpu": "[tpu]", "cuda": "[cuda]"}.get(platforms.partition(",")[0], "")
        fix = f"install clp-jax{extra} again with constraints.txt, or set JAX_PLATFORMS=cpu"
    return f"JAX does not start ({error.rstrip('.')}): {fix}."
