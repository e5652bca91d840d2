"""A bound on the addresses that are dialled at once, shared fairly by the peers that are dialled.

Comes in: a peer for each address that is about to be dialled. Goes out: a wait for a slot. The more slots a
peer holds, the more must stay free for others: so a few peers with many dead addresses cannot take all slots.
If slots are short, the peer with the fewest gets the next one, and equals take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

_RESERVED = 16
"""At most one slot in this many is kept free for peers that hold fewer: few slots must all be usable."""

_Line = dict[Hashable, deque[asyncio.Future[None]]]


class DialSlots:
    """See above. `maximum` is the number of slots.

    Attributes:
        num_free: slots that nobody holds.
    """

    __slots__ = ("_held", "_lines", "_maximum", "_most_reserved", "num_free")

    def __init__(self, maximum: int) -> None:
        self.num_free = maximum
        self._maximum = maximum
        self._most_reserved = maximum // _RESERVED
        self._held: dict[Hashable, int] = {}
        self._lines: dict[int, _Line] = {}  # those who wait, by the number of slots that they hold

    @property
    def num_held(self) -> int:
        """Slots that are taken."""
        return self._maximum - self.num_free

    async def acquire(self, peer: Hashable) -> None:
        """Takes a slot for `peer`, as soon as it may have one."""
        held = self._held.get(peer, 0)
        if self._may_take(held):
            self._take(peer)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(held, {}).setdefault(peer, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release(peer)
            raise

    def release(self, peer: Hashable) -> None:
        """Gives a slot of `peer` back. The next one who waits gets it."""
        self.num_free += 1
        self._holds(peer, self._held[peer] - 1)
        while self._lines:
            held = min(self._lines)
            if not self._may_take(held):
                return
            self._take_next(held)

    def _may_take(self, held: int) -> bool:
        return self.num_free > min(held, self._most_reserved)

    def _take(self, peer: Hashable) -> None:
        self.num_free -= 1
        self._holds(peer, self._held.get(peer, 0) + 1)

    def _take_next(self, held: int) -> None:
        """Gives a slot to the first peer in the line of those that hold `held` slots."""
        peer = next(iter(self._lines[held]))
        waiters = self._lines[held][peer]
        waiter = waiters.popleft()
        if not waiters:
            self._take_out(held, peer)
        if not waiter.done():  # else it was cancelled
            waiter.set_result(None)
            self._take(peer)

    def _holds(self, peer: Hashable, held: int) -> None:
        """Notes that `peer` holds `held` slots now, and moves it to the end of the line where it belongs."""
        before = self._held.pop(peer, 0)
        if held:
            self._held[peer] = held
        if peer in self._lines.get(before, ()):
            waiters = self._take_out(before, peer)
            self._lines.setdefault(held, {})[peer] = waiters

    def _take_out(self, held: int, peer: Hashable) -> deque[asyncio.Future[None]]:
        line = self._lines[held]
        waiters = line.pop(peer)
        if not line:
            del self._lines[held]
        return waiters
