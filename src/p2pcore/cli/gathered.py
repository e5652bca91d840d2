"""Options of several commands that come to one object.

Comes in: a dataclass, the options its fields are named after. Goes out: a decorator of commands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def gathered(made: type[Any], name: str, options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Has a command take `options`, and gives it what they came to, a `made`, as the argument `name`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def gathering(*args: Any, **kwargs: Any) -> Any:
            mine = {field.name: kwargs.pop(field.name) for field in fields(made)}
            return function(*args, **{name: made(**mine)}, **kwargs)

        for option in reversed(options):
            gathering = option(gathering)
        return gathering  # type: ignore[return-value]

    return decorate
