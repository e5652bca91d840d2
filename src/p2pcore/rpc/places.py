"""How many calls of a service run at once, and which of those that wait comes next.

Comes in: calls as peer and size. Goes out: places, in turns among peers, in order for one peer; or
RESOURCE_EXHAUSTED at once where too many wait. Never runs anything, and has no clock: a caller that no longer
wants its place is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pcore import limits, options
from p2pcore.codes import RpcCode
from p2pcore.errors import LimitExceeded, rpc_error

if TYPE_CHECKING:
    from p2pcore.values.peer_id import PeerId

Waiter = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls of a service may run and wait.

    Attributes:
        running, running_per_peer: calls that run at once, in all and for one peer.
        queued, queued_per_peer: calls that wait for that.
        queued_bytes: the requests of those that wait, together.

    Raises: TypeError, ValueError: a field is wrong.
    """

    running: int = limits.RPC_MAX_RUNNING
    running_per_peer: int = limits.RPC_MAX_RUNNING_PER_PEER
    queued: int = limits.RPC_MAX_QUEUED
    queued_per_peer: int = limits.RPC_MAX_QUEUED_PER_PEER
    queued_bytes: int = limits.RPC_MAX_QUEUED_BYTES

    def __post_init__(self) -> None:
        for name, least in (("running", 1), ("running_per_peer", 1), ("queued", 0), ("queued_per_peer", 0)):
            options.whole(name, getattr(self, name), least)
        options.whole("queued_bytes", self.queued_bytes, 0, limits.MAX_SIZE_BYTES)


class Places:
    """The places of one service.

    Attributes:
        num_running, num_queued: calls now. queued_bytes: the requests of those that wait.
    """

    __slots__ = ("_bounds", "_queues", "_running", "_turns", "num_queued", "num_running", "queued_bytes")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._running: dict[PeerId, int] = {}
        self._queues: dict[PeerId, OrderedDict[Waiter, None]] = {}  # never an empty queue
        self._turns: OrderedDict[PeerId, None] = OrderedDict()  # peers that wait only for others to leave
        self.num_running = 0
        self.num_queued = 0
        self.queued_bytes = 0

    def try_enter(self, peer: PeerId) -> bool:
        """Takes a place, if one is free for `peer` and it has no call that waits. Then call `leave` once."""
        running = self._running.get(peer, 0)
        bounds = self._bounds
        if self.num_running >= bounds.running or running >= bounds.running_per_peer or peer in self._queues:
            return False
        self.num_running += 1
        self._running[peer] = running + 1
        return True

    async def enter(self, peer: PeerId, size: int) -> None:
        """Waits for a place, with a request of `size` bytes. Then call `leave` once.

        Raises: RpcError: RESOURCE_EXHAUSTED, at once: too many wait.
        """
        if self.try_enter(peer):
            return
        self._check(peer, size)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._line_up(peer, waiter)
        self.num_queued += 1
        self.queued_bytes += size
        try:
            await waiter
        except asyncio.CancelledError:
            self._give_up(peer, waiter)
            raise
        finally:
            self.num_queued -= 1
            self.queued_bytes -= size

    def leave(self, peer: PeerId) -> None:
        """The call has ended. The next one that waits gets the place."""
        self.num_running -= 1
        left = self._running[peer] - 1
        if left:
            self._running[peer] = left
        else:
            del self._running[peer]
        if peer in self._queues:
            self._turns[peer] = None
        while self._turns and self.num_running < self._bounds.running:
            self._admit(self._turns.popitem(last=False)[0])

    def _has_room(self, peer: PeerId) -> bool:
        return self._running.get(peer, 0) < self._bounds.running_per_peer

    def _take(self, peer: PeerId) -> None:
        self.num_running += 1
        self._running[peer] = self._running.get(peer, 0) + 1

    def _check(self, peer: PeerId, size: int) -> None:
        queued = len(self._queues.get(peer, ()))
        for setting, used, most in (
            ("queued", self.num_queued + 1, self._bounds.queued),
            ("queued_per_peer", queued + 1, self._bounds.queued_per_peer),
            ("queued_bytes", self.queued_bytes + size, self._bounds.queued_bytes),
        ):
            if used > most:
                over = LimitExceeded(setting, used, most, setting=f"rpc.Bounds({setting}=...)")
                raise rpc_error(RpcCode.RESOURCE_EXHAUSTED, "too many calls wait already") from over

    def _line_up(self, peer: PeerId, waiter: Waiter) -> None:
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = OrderedDict()
            if self._has_room(peer):
                self._turns[peer] = None
        queue[waiter] = None

    def _admit(self, peer: PeerId) -> None:
        """It is the turn of `peer`: its first call gets a place."""
        queue = self._queues[peer]
        waiter, _ = queue.popitem(last=False)
        if not waiter.done():  # else it has been cancelled in this turn of the loop
            self._take(peer)
            waiter.set_result(None)
        if not queue:
            del self._queues[peer]
        elif self._has_room(peer):
            self._turns[peer] = None

    def _give_up(self, peer: PeerId, waiter: Waiter) -> None:
        """The caller was cancelled while it waited, or just after it got the place."""
        if not waiter.cancelled():
            self.leave(peer)
            return
        queue = self._queues.get(peer)
        if queue is not None and waiter in queue:
            del queue[waiter]
            if not queue:
                del self._queues[peer]
                self._turns.pop(peer, None)
