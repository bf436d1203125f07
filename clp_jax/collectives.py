"""The traffic between the devices of a compiled program, computed from the program's text."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_HEADER = re.compile(r"^(?:ENTRY )?%?(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (.*?) ([a-z][a-z0-9-]*)\(")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([^,\s]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHILE = re.compile(r"condition=%?([^,\s]+), body=%?([^,\s]+)")
_CONSTANT = re.compile(r" [su]32\[\]\S* constant\((\d+)\)")


@dataclass
class _Computation:
    lines: list[str] = field(default_factory=list)
    entry: bool = False


def collective_bytes(program: str) -> dict[str, int]:
    """Bytes that each device receives when it runs a program once, by kind of collective.

    Ring algorithms are assumed: for a result of S bytes over n devices, each device receives
    S (n-1)/n bytes in an all-gather or all-to-all, S (n-1) in a reduce-scatter, 2 S (n-1)/n in an
    all-reduce, and S in a permutation. A collective in a loop counts once per iteration; loops are
    assumed to count from zero to the constant in their condition, as those of `jax.lax.scan` do.

    Args:
        program: The text of an optimized HLO module, from ``compiled.as_text()``.
    """
    computations = _computations(program)
    entry = next(name for name, found in computations.items() if found.entry)
    totals: Counter[str] = Counter()
    channels: set[str] = set()
    for name, times in _executions(computations, entry, 1):
        # The TPU compiler writes a reduce-scatter as an all-reduce followed by a slice.
        scatters = name.startswith("all-reduce-scatter")
        for line in computations[name].lines:
            instruction = _INSTRUCTION.match(line)
            if not instruction:
                continue
            kind = instruction[2].removesuffix("-start")
            # A collective that is split over several fusions has one channel.
            channel = re.search(r"channel_id=\d+", line)
            if kind not in KINDS or (channel and channel[0] in channels):
                continue
            if channel:
                channels.add(channel[0])
            received = _received(kind, instruction[1], line, started=kind != instruction[2])
            if scatters and kind == "all-reduce":
                kind, received = "reduce-scatter", received / 2
            totals[kind] += round(times * received)
    return dict(totals)


def _computations(program: str) -> dict[str, _Computation]:
    found: dict[str, _Computation] = {}
    current = None
    for line in program.splitlines():
        if header := _HEADER.match(line):
            current = found[header[1]] = _Computation(entry=line.startswith("ENTRY"))
        elif line.startswith("}"):
            current = None
        elif current is not None:
            current.lines.append(line)
    return found


def _executions(
    computations: dict[str, _Computation], name: str, times: int
) -> Iterator[tuple[str, int]]:
    """Yield the name of each computation at every call, and how many times it runs there."""
    yield name, times
    for line in computations[name].lines:
        if loop := _WHILE.search(line):
            condition, body = loop[1], loop[2]
            yield from _executions(computations, body, times * _trips(computations, condition))
            continue
        branches = [name for group in _BRANCHES.findall(line) for name in group.split(", ")]
        for called in (*_CALLED.findall(line), *branches):
            yield from _executions(computations, called.removeprefix("%"), times)


def _trips(computations: dict[str, _Computation], condition: str) -> int:
    lines = [
        line
        for name, _ in _executions(computations, condition, 1)
        for line in computations[name].lines
    ]
    return max(int(constant) for line in lines for constant in _CONSTANT.findall(line))


def _received(kind: str, result: str, line: str, *, started: bool) -> float:
    size, devices = _size(result), _group_size(line)
    if started and kind == "all-gather":  # The result includes the operand.
        size *= devices / (devices + 1)
    match kind:
        case "all-reduce":
            return 2 * size * (devices - 1) / devices
        case "reduce-scatter":
            return size * (devices - 1)
        case "collective-permute":
            return size / 2 if started else size
        case _:
            return size * (devices - 1) / devices


def _size(shapes: str) -> float:
    """Bytes of an array type, or of a tuple of them, without scalars."""
    return sum(
        int(bits or 8) / 8 * math.prod(map(int, dimensions.split(",")))
        for bits, dimensions in _ARRAY.findall(shapes)
        if dimensions
    )


def _group_size(line: str) -> int:
    """Number of devices in each group of a collective."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(axis.split("=") for axis in named[1].split(","))
        return math.prod(int(sizes[axis.strip()]) for axis in named[2].split(","))
    return 1
