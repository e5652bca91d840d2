"""The deadlines of the calls of one client, with one timer for all of them.

Comes in: streams of calls, and when each must have ended. Goes out: streams whose reads and writes raise
DeadlineExceeded from then on. A timer for each call would cost as much as the rest of the client. The timer
is set for the earliest deadline there was when it was set; a call that ends leaves it alone.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream

_MARGIN_S = 0.001  # uvloop's timers count whole milliseconds and may fire early


class Deadlines:
    """The calls under way that have a deadline."""

    __slots__ = ("_at", "_next", "_timer")

    def __init__(self) -> None:
        self._at: dict[Stream, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when the timer fires

    def watch(self, stream: Stream, at: float) -> None:
        """The call on `stream` must end before `at`, by the event loop's time."""
        self._at[stream] = at
        if at < self._next:
            self._set_timer(at)

    def forget(self, stream: Stream) -> None:
        """The call on `stream` has ended. Idempotent."""
        self._at.pop(stream, None)

    def rest(self) -> None:
        """Ends the timer, if no call needs it. Otherwise it ends with the last deadline. Idempotent."""
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
        for stream in [stream for stream, at in self._at.items() if at <= now]:
            del self._at[stream]
            stream.set_deadline(0)
        if self._at:
            self._set_timer(min(self._at.values()))
