"""Arguments of the public functions, checked by the types in their signatures before any work."""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

from clp_jax.errors import UserError
from clp_jax.faults import fault

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, called with arguments of the types that its signature names, or not at all.

    Raises:
        UserError: some are of other types or beyond the limits of `clp_jax.limits`; all are told.
    """

    @cache
    def read() -> Callable[..., tuple[Any, Any]]:
        def collect(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
            return args, kwargs

        config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
        return validate_call(config=config)(wraps(function)(collect))

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            args, kwargs = read()(*args, **kwargs)
        except ValidationError as error:
            names = [*signature(function).parameters]
            told = dict.fromkeys(
                fault(one | {"loc": _place(one["loc"], names)}) for one in error.errors()
            )
            raise UserError(f"{function.__name__}: {'; '.join(told)}.") from None
        return function(*args, **kwargs)

    return call


def _place(place: Sequence[str | int], names: Sequence[str]) -> list[str | int]:
    """A place with the argument's name for its number, and without the types that unions tried."""
    first, *rest = place
    first = names[first] if isinstance(first, int) else first
    return [first, *(part for part in rest if "[" not in str(part))]
