"""One thing that was checked, and a limit on how long a check may take."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Args:
        name: What it is.
        found: What was found, for people.
        problem: What is wrong and what to do, in a sentence; None if nothing is.
        facts: What was found, for programs.
    """

    name: str
    found: str
    problem: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The check, ready for JSON."""
        return {"name": self.name, "found": self.found, "problem": self.problem, **self.facts}


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of ``work``, which is left behind in a thread if it does not end in time.

    Raises:
        TimeoutError: it did not.
        Exception: whatever ``work`` raises.
    """
    ended: list[Callable[[], T]] = []

    def run() -> None:
        try:
            result = work()
            ended.append(lambda: result)
        except Exception as error:
            failure = error  # Python forgets `error` at the end of this block.
            ended.append(lambda: _raise(failure))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not ended:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    return ended[0]()


def _raise(error: Exception) -> Any:
    raise error


def one_line(error: object) -> str:
    """The text of an error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
