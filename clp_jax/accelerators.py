"""The accelerator types of Cloud TPU."""

from collections.abc import Mapping

from clp_jax.errors import UserError

# Chips along each axis of a slice, by its number of chips.
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBIC = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
# Accelerator types of Cloud TPU: the generation, its slices, and the cores per chip; the number in
# the name counts cores.
TYPES: Mapping[str, tuple[str, Mapping[int, str], int]] = {
    "v4": ("v4", CUBIC, 2),
    "v5litepod": ("v5e", FLAT, 1),
    "v5e": ("v5e", FLAT, 1),
    "v5p": ("v5p", CUBIC, 2),
    "v6e": ("v6e", FLAT, 1),
}


def slice_topology(accelerator: str) -> tuple[str, int, int]:
    """The topology of a slice, such as ``v5e:4x8``, its number of chips and the cores per chip.

    Raises:
        UserError: the accelerator type is unknown.
    """
    kind, _, number = accelerator.rpartition("-")
    generation, shapes, cores = TYPES.get(kind, ("", {}, 1))
    count = int(number) // cores if number.isdecimal() and len(number) < 6 else 0
    if count not in shapes:
        known = ", ".join(
            f"{name}-{cores * size}" for name, (_, sizes, cores) in TYPES.items() for size in sizes
        )
        raise UserError(
            f"{accelerator} is not a known accelerator type of Cloud TPU: choose from {known}."
        )
    return f"{generation}:{shapes[count]}", count, cores
