"""Checksums of a checkpoint's files: what storage changed or lost is found before it is used.

TensorStore notices a truncated file only if it needs the missing end, and never notices changed
bytes of an array.
"""

from pathlib import Path

import xxhash

from clp_jax.errors import UserError
from clp_jax.files import read_json, sync, write_json

SUMS = "sums.json"
LATE = "_CHECKPOINT_METADATA"
"""Gets the commit time after the sums are written; a checkpoint can be read without it."""

_BLOCK = 1 << 20


def write_checksums(folder: Path) -> None:
    """Flush the files of a checkpoint to the disk, then write their sizes and sums.

    The sums are 128-bit XXH3. ``sums.json`` is written last: if it exists, so does the rest.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != LATE)
    sums = {
        str(file.relative_to(folder)): [file.stat().st_size, _safe_checksum(file)] for file in files
    }
    for inner in folder.rglob("*/"):
        sync(inner)
    write_json(folder / SUMS, sums)


def find_damage(folder: Path, *, within: str = "", part: int = 0, parts: int = 1) -> str | None:
    """Name a file that has changed since the sums were written; None if there is none.

    Args:
        folder: The checkpoint.
        within: Look only at files whose path in the folder starts with this.
        part: Look only at this part of them,
        parts: out of this many.
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
        if file.stat().st_size != noted[0] or file_checksum(file) != noted[1]:
            return name
    return None


def file_checksum(file: Path) -> str:
    """The XXH3 sum of a file, 128 bits in hexadecimal."""
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(_BLOCK))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _safe_checksum(file: Path) -> str:
    """Flush a file to the disk, and return its sum."""
    sync(file)
    return file_checksum(file)
