"""Begins an await at once, to learn whether it has to wait at all.

Comes in: an awaitable. Goes out: its result, or something to await for it. If the result is there at once,
the caller can save a timer, or a write that only a waiting peer needs. Cancelling works as usual.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """`awaitable`, run up to its first wait. Await it at most once, and before you await anything else.

    Attributes:
        is_done: the result is there; awaiting it does not wait.
    """

    __slots__ = ("_result", "_steps", "_waiting", "is_done")

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._steps = awaitable.__await__()
        self._result: Any = None
        self._waiting: Any = None
        self.is_done = False
        try:
            self._waiting = next(self._steps)
        except StopIteration as done:
            self.is_done = True
            self._result = done.value

    def __await__(self) -> Generator[Any, Any, T]:
        if self.is_done:
            result: T = self._result
            return result
        try:
            yield self._waiting
        except BaseException as error:
            try:
                self._steps.throw(error)  # the awaitable cleans up and raises it again
            except StopIteration as done:
                caught: T = done.value
                return caught
            raise
        return (yield from self._steps)
