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
    """They are in order of the time at which each was set aside, so that one timer is enough."""

    __slots__ = ("_over", "_since", "_timer")

    def __init__(self) -> None:
        self._since: dict[Stream, float] = {}
        self._over: set[Stream] = set()  # those that were reset here, until that is heard
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since) + len(self._over)

    def add(self, stream: Stream) -> None:
        """`stream` was set aside. It is reset after STREAM_NEGOTIATION_TIMEOUT_S."""
        loop = asyncio.get_running_loop()
        self._since[stream] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(limits.STREAM_NEGOTIATION_TIMEOUT_S, self._look)

    def remove(self, stream: Stream) -> bool:
        """`stream` has been heard. Returns: whether it was here."""
        if self._since.pop(stream, None) is not None:
            if not self._since:
                self._since = {}  # an empty dict keeps its memory
            return True
        if stream in self._over:
            self._over.remove(stream)
            return True
        return False

    def _look(self) -> None:
        """Resets those whose time is over, a few in one turn of the loop."""
        self._timer = None
        loop = asyncio.get_running_loop()
        before = loop.time() - limits.STREAM_NEGOTIATION_TIMEOUT_S
        for _ in range(limits.OVERDUE_PER_TURN):
            oldest = next(iter(self._since), None)
            if oldest is None:
                return
            wait = self._since[oldest] - before
            if wait > 0:
                self._timer = loop.call_later(wait, self._look)
                return
            del self._since[oldest]
            self._over.add(oldest)
            oldest.reset(codes.STREAM_PROTOCOL_NEGOTIATION_FAILED)
        self._timer = loop.call_later(0, self._look)

    def close(self) -> None:
        """Resets all. They are removed as each is heard."""
        for stream in self._since:
            stream.reset(codes.STREAM_SHUTDOWN)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
