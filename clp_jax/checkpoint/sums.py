"""Checksums of a checkpoint's files: what storage has changed or lost is found before it is used.

TensorStore notices a file that was cut short where it needs the end of it, and not at all when
bytes of an array have changed.
"""

from pathlib import Path

import xxhash

from clp_jax.errors import UserError
from clp_jax.files import read_json, sync, write_json

SUMS = "sums.json"
LATE = "_CHECKPOINT_METADATA"
"""Gets the time of the commit after the sums are written; a checkpoint is read without it too."""

_BLOCK = 1 << 24


def write_sums(folder: Path) -> None:
    """Bring the files of a checkpoint safely onto the disk, and then list their sizes and sums.

    The sums are XXH3 with 128 bits. ``sums.json`` is written last: where it is, all the rest is.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != LATE)
    sums = {str(file.relative_to(folder)): [file.stat().st_size, _safe_sum(file)] for file in files}
    for inner in folder.rglob("*/"):
        sync(inner)
    write_json(folder / SUMS, sums)


def find_damage(folder: Path, *, within: str = "", part: int = 0, parts: int = 1) -> str | None:
    """Name a file that is not as it was when the sums were written; None if there is none.

    Args:
        folder: The checkpoint.
        within: Look only at files whose path in the folder starts with this.
        part: Look only at this part of them,
        parts: of so many.
    """
    try:
        sums = read_json(folder / SUMS)
    except UserError:
        sums = {}
    if not sums:
        return SUMS
    names = sorted(name for name in sums if name.startswith(within))
    for name in names[part::parts]:
        file, noted = folder / name, sums[name]
        if not (isinstance(noted, list) and len(noted) == 2 and file.is_file()):
            return name
        if file.stat().st_size != noted[0] or file_sum(file) != noted[1]:
            return name
    return None


def file_sum(file: Path) -> str:
    """The XXH3 sum of a file, 128 bits in hexadecimal."""
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(_BLOCK))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _safe_sum(file: Path) -> str:
    """The same of a file that is safely on the disk then."""
    sync(file)
    return file_sum(file)
