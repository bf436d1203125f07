"""What a run needs from a machine: devices, versions, memory, disks, the hub, a bucket."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clp_jax.arguments import checked
from clp_jax.doctor.access import check_hub, check_output
from clp_jax.doctor.checks import Check
from clp_jax.doctor.devices import check_devices
from clp_jax.doctor.machine import check_disks, check_memory, check_mounts, check_versions
from clp_jax.evaluate.tables import markdown_table
from clp_jax.limits import PathOrName


@dataclass(frozen=True)
class Report:
    """What `check_machine` found; ``str(report)`` is a table and the problems below it."""

    checks: Sequence[Check]

    @property
    def backend(self) -> str | None:
        """What JAX computes on: ``cpu``, ``gpu`` or ``tpu``; None if it does not start."""
        return next((c.facts["backend"] for c in self.checks if "backend" in c.facts), None)

    @property
    def problems(self) -> list[str]:
        """A sentence about each problem: what is wrong and what to do."""
        return [check.problem for check in self.checks if check.problem]

    def to_dict(self) -> dict[str, Any]:
        """Everything that was found, ready for JSON."""
        return {
            "backend": self.backend,
            "problems": self.problems,
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        rows = [(check.name, check.found) for check in self.checks]
        lines = [f"Problem: {problem}" for problem in self.problems] or ["No problem found."]
        return "\n".join([markdown_table(("what", "found"), rows), "", *lines])


@checked
def check_machine(out: PathOrName | None = None) -> Report:
    """Check whether this machine can run clp-jax, and say what is wrong.

    Every check ends after a while, whatever does not answer. JAX starts in a process of its own
    and computes a sum over all devices; with several hosts, every host must check at the same time.
    If JAX has started in this process already, its devices are used here, since a TPU belongs to
    one process.

    Args:
        out: Where runs will be written: a folder, or ``gs://bucket/name``, where a small file is
            written, read and removed.

    Returns:
        The report, with its problems.
    """
    return Report(list(_checks(out)))


def _checks(out: PathOrName | None) -> Iterator[Check]:
    yield from check_devices()
    yield from check_versions()
    yield check_memory()
    yield from check_disks()
    yield from check_mounts()
    yield check_hub()
    if out is not None:
        yield check_output(str(out))
