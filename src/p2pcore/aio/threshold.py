"""Counts finished connections that nobody has accepted yet, and waits until there are few.

Comes in: acquire and release. Goes out: `wait` returns while the count is under its maximum. `acquire` never
waits: a finished handshake cannot be held back, only new work can.
"""

from __future__ import annotations

import asyncio

from p2pcore.errors import LocalProtocolError
from p2pcore.limits import ACCEPT_QUEUE_LENGTH


class Threshold:
    """Holds back new work while `maximum` or more finished pieces wait.

    Args:
        maximum: pieces, at least 1.

    Raises:
        ValueError: `maximum` is not positive.
    """

    __slots__ = ("_count", "_maximum", "_waiters")

    def __init__(self, maximum: int = ACCEPT_QUEUE_LENGTH) -> None:
        if maximum < 1:
            raise ValueError(f"a threshold needs a maximum of at least 1, not {maximum}")
        self._maximum = maximum
        self._count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """Pieces acquired and not yet released; may exceed the maximum for a short time."""
        return self._count

    @property
    def is_full(self) -> bool:
        """True while `wait` would wait."""
        return self._count >= self._maximum

    def acquire(self) -> None:
        """Adds one piece. Never waits."""
        self._count += 1

    def release(self) -> None:
        """Removes one piece. Wakes the waiters when the count falls below the maximum, and at 0.

        Raises:
            LocalProtocolError: the count is 0.
        """
        if self._count == 0:
            raise LocalProtocolError("threshold released more often than acquired")
        self._count -= 1
        if self._count in (self._maximum - 1, 0):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self) -> None:
        """Returns when the count is below the maximum. May be cancelled at any time."""
        while self._count >= self._maximum:
            await self._change()

    async def wait_empty(self) -> None:
        """Returns when the count is 0. May be cancelled at any time."""
        while self._count:
            await self._change()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
