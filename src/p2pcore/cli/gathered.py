"""Puts the values of several command-line options into one object, which the command's function gets.

Comes in: a dataclass, and the click options for its fields. Goes out: a decorator for commands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def gathered(made: type[Any], name: str, options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """A decorator: a command takes `options`; its function gets their values as one `made`, called `name`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def gathering(*args: Any, **kwargs: Any) -> Any:
            mine = {field.name: kwargs.pop(field.name) for field in fields(made)}
            return function(*args, **{name: made(**mine)}, **kwargs)

        for option in reversed(options):
            gathering = option(gathering)
        return gathering  # type: ignore[return-value]

    return decorate
