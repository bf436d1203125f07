"""The packages, the memory and the disks of this machine."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clp_jax.doctor.checks import Check, within
from clp_jax.files import cache_folder

PACKAGES = (
    "clp-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers",
    "tokenizers", "datasets", "huggingface_hub",
)  # fmt: skip
OPTIONAL = (
    "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin", "gcsfs", "torch", "lm-eval",
)  # fmt: skip
GIB = 2**30
LEAST_FREE = GIB
"""Free bytes below which a disk is called full."""
PATIENCE = 5.0
"""Seconds that a disk may take to answer."""

REMOTE = ("nfs", "nfs4", "lustre", "cifs", "ceph", "beegfs", "gpfs", "fuse", "fuse.gcsfuse")
"""File systems on other machines; Drive in Colab is ``fuse``."""


def check_versions() -> Iterator[Check]:
    """The versions of Python and of the packages that decide what a run computes."""
    yield Check("python", platform.python_version())
    for package in (*PACKAGES, *OPTIONAL):
        try:
            yield Check(package, version(package))
        except PackageNotFoundError:
            if package in PACKAGES:
                yield Check(
                    package,
                    "missing",
                    f"{package} is not installed: install clp-jax again with constraints.txt.",
                )


def check_memory() -> Check:
    """The memory of the host."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():  # Also counts what the kernel would give back.
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = 1024 * int(fields["MemAvailable"].split()[0])
    return Check(
        "host memory",
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB free",
        facts={"free_bytes": free, "total_bytes": total},
    )


def check_disks() -> Iterator[Check]:
    """The disks that every run writes to."""
    from huggingface_hub.constants import HF_HUB_CACHE

    yield check_disk("this folder", Path.cwd())
    yield check_disk("temporary files", Path(tempfile.gettempdir()))
    yield check_disk("compiled programs", cache_folder())
    yield check_disk("hub cache", Path(HF_HUB_CACHE))


def check_disk(name: str, folder: Path) -> Check:
    """Whether a folder, which need not exist yet, can be written to and has space."""

    def look() -> tuple[int, bool]:
        above = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.is_dir())
        return shutil.disk_usage(above).free, os.access(above, os.W_OK | os.X_OK)

    try:
        free, writable = within(PATIENCE, look)
    except (OSError, TimeoutError) as error:
        return Check(name, str(folder), f"{folder} does not answer ({error}): mount it again.")
    problem = None
    if not writable:
        problem = f"{folder} is not writable: choose another folder, or change its permissions."
    elif free < LEAST_FREE:
        problem = f"{folder} has only {free / GIB:.1f} GiB left: make room there."
    return Check(
        name,
        f"{folder}, {free / GIB:,.1f} GiB free",
        problem,
        {"path": str(folder), "free_bytes": free},
    )


def check_mounts(table: Path = Path("/proc/self/mounts")) -> Iterator[Check]:
    """The file systems on other machines that are mounted here, such as Drive and buckets."""
    if not table.exists():
        return
    for line in table.read_text().splitlines():
        device, folder, kind, *_ = line.split()
        if kind in REMOTE:
            # Spaces and the like are octal escapes.
            path = Path(folder.encode().decode("unicode_escape"))
            yield check_disk(f"mount of {device} ({kind})", path)
