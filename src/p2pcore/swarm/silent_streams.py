"""Streams on which the peer has said nothing yet: they wait without a task, and each for a bounded time.

Comes in: streams that were set aside, and the news that one has been heard. Goes out: a reset of each that
has been silent for too long. Never reads, and counts nothing. See docs/decisions/0046.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from p2pcore import codes, limits

if TYPE_CHECKING:
    from p2pcore.interfaces import Stream


class SilentStreams:
    """They are in order of the time at which each was set aside, so that one timer is enough.

    Attributes:
        since: each of them with that time. For reading only.
    """

    __slots__ = ("_timer", "since")

    def __init__(self) -> None:
        self.since: dict[Stream, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream) -> None:
        """`stream` was set aside. It is reset after STREAM_NEGOTIATION_TIMEOUT_S."""
        loop = asyncio.get_running_loop()
        self.since[stream] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(limits.STREAM_NEGOTIATION_TIMEOUT_S, self._look)

    def remove(self, stream: Stream) -> bool:
        """`stream` has been heard. Returns: whether it was here."""
        found = self.since.pop(stream, None) is not None
        if not self.since:
            self.since = {}  # an empty dict keeps its memory
        return found

    def _look(self) -> None:
        """Resets those whose time is over, a few in one turn of the loop. Each is heard then, and removed."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for _ in range(limits.OVERDUE_PER_TURN):
            oldest = next(iter(self.since), None)
            if oldest is None:
                return
            wait = self.since[oldest] + limits.STREAM_NEGOTIATION_TIMEOUT_S - now
            if wait > 0:
                self._timer = loop.call_later(wait, self._look)
                return
            del self.since[oldest]
            self.since[oldest] = now  # the last one: it is not looked at again before it is removed
            oldest.reset(codes.STREAM_PROTOCOL_NEGOTIATION_FAILED)
        self._timer = loop.call_later(0, self._look)

    def close(self) -> None:
        """Resets all. Each is heard then, and removed."""
        for stream in self.since:
            stream.reset(codes.STREAM_SHUTDOWN)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
