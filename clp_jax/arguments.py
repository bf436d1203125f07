"""Validation of the arguments of public functions against the types in their signatures."""

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
    """The function, called only with arguments that match the types in its signature.

    Raises:
        UserError: arguments have other types or exceed the limits of `clp_jax.limits`; names all.
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
            faults = dict.fromkeys(
                fault(one | {"loc": _place(one["loc"], names)}) for one in error.errors()
            )
            raise UserError(f"{function.__name__}: {'; '.join(faults)}.") from None
        return function(*args, **kwargs)

    return call


def _place(place: Sequence[str | int], names: Sequence[str]) -> list[str | int]:
    """A location with the argument's name instead of its index, without the types of unions."""
    first, *rest = place
    first = names[first] if isinstance(first, int) else first
    return [first, *(part for part in rest if "[" not in str(part))]
