"""A bound on running work that silent peers cannot use up.

Comes in: items of work as they begin and end. Goes out: a wait for a free slot. An item that takes long waits
for its peer, not for us: it gives its slot back and goes on, so that others may begin. If there are too many
slow items, the oldest is ended. Never starts or cancels anything itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """Create it inside a running event loop.

    Args:
        maximum: quick items at the same time.
        slow_after: seconds after which an item is slow.
        max_slow: slow items at the same time; 0: no item ever counts as slow.
        drop: called with the oldest item if there is one slow item too many. Its slot is free by then.
    """

    __slots__ = ("_all", "_drop", "_loop", "_max_slow", "_maximum", "_quick", "_slow_after", "_waiters")

    def __init__(self, maximum: int, slow_after: float, max_slow: int, drop: Callable[[T], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._maximum = maximum
        self._slow_after = slow_after
        self._max_slow = max_slow
        self._drop = drop
        self._all: dict[T, None] = {}  # oldest first
        self._quick: dict[T, float] = {}  # those not known to be slow, with their start time
        self._waiters: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, item: T) -> None:
        """Begins an item. Call it after `wait`, before you await anything else."""
        self._all[item] = None
        self._quick[item] = self._loop.time()

    def release(self, item: T) -> None:
        """Frees the slot of an item that has ended. Idempotent."""
        self._all.pop(item, None)
        self._quick.pop(item, None)
        self._wake()

    async def wait(self) -> None:
        """Returns when fewer than `maximum` items are quick: one has ended or has become slow."""
        while len(self._quick) >= self._maximum:
            if not self._max_slow:
                await self._change()
                continue
            slow_at = next(iter(self._quick.values())) + self._slow_after
            if slow_at <= self._loop.time():
                self._put_aside()
                continue
            timer = self._loop.call_at(slow_at, self._wake)
            try:
                await self._change()
            finally:
                timer.cancel()

    async def wait_empty(self) -> None:
        """Returns when no item is left."""
        while self._all:
            await self._change()

    def _put_aside(self) -> None:
        del self._quick[next(iter(self._quick))]
        if len(self._all) - len(self._quick) > self._max_slow:
            oldest = next(iter(self._all))
            del self._all[oldest]
            self._drop(oldest)

    async def _change(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
