"""The deadlines of many short waits, with one timer for all of them.

Comes in: what waits, and when each must have ended. Goes out: a call for each that has not ended in time. A
timer for each wait would often cost more than the wait. The timer is set for the earliest deadline there was
when it was set; a wait that ends leaves it alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream

T = TypeVar("T")

_MARGIN_S = 0.001  # uvloop's timers count whole milliseconds and may fire early


def end_stream(stream: Stream) -> None:
    """Reads and writes of `stream` raise DeadlineExceeded from now on."""
    stream.set_deadline(0)


class Deadlines(Generic[T]):
    """What waits under a deadline.

    Args: late: called with what has not ended in time. It must be quick and must not raise.
    """

    __slots__ = ("_at", "_late", "_next", "_timer")

    def __init__(self, late: Callable[[T], None]) -> None:
        self._late = late
        self._at: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when the timer fires

    def watch(self, item: T, at: float) -> None:
        """`item` must end before `at`, by the event loop's time."""
        self._at[item] = at
        if at < self._next:
            self._set_timer(at)

    def forget(self, item: T) -> None:
        """`item` has ended. Idempotent."""
        self._at.pop(item, None)

    def rest(self) -> None:
        """Ends the timer, if nothing needs it. Otherwise it ends with the last deadline. Idempotent."""
        if self._timer is not None and not self._at:
            self._timer.cancel()
            self._timer = None
            self._next = math.inf

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = at
        self._timer = asyncio.get_running_loop().call_at(at + _MARGIN_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self._next = math.inf
        now = asyncio.get_running_loop().time()
        for item in [item for item, at in self._at.items() if at <= now]:
            del self._at[item]
            self._late(item)
        if self._at:
            self._set_timer(min(self._at.values()))
