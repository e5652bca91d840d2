"""One dial to one peer, shared by all who ask for it at the same time.

Comes in: addresses, and a way to dial one. Goes out: the first connection, or each address with its cause.
Addresses are started as the ranker spaces them, the next at once when nothing is in flight. Never tries an
address twice, nor more than MAX_DIALS_PER_PEER at once; ends when nobody waits any more. Takes its time from
the event loop alone.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.dialing.ranker import rank
from p2pcore.errors import DialError, SwarmClosed

if TYPE_CHECKING:
    from p2pcore.swarm.conn import Conn
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

DialOne = Callable[["Multiaddr", "PeerId | None"], Awaitable["Conn"]]


class PeerDial:
    """The addresses of one peer, one task for each that is being dialled.

    Attributes:
        is_reported: for the owner, to tell of a failure once.
    """

    __slots__ = (
        "_causes",
        "_dial_one",
        "_loop",
        "_peer",
        "_queue",
        "_refused",
        "_result",
        "_skipped",
        "_stopped",
        "_tasks",
        "_timer",
        "_waiters",
        "is_reported",
    )

    def __init__(self, peer: PeerId | None, dial_one: DialOne) -> None:
        self._loop = asyncio.get_running_loop()
        self._peer = peer
        self._dial_one = dial_one
        self._queue: list[tuple[float, int, Multiaddr]] = []  # a heap: when it is due, which in order
        self._causes: dict[Multiaddr, BaseException | None] = {}
        self._refused: dict[Multiaddr, BaseException] = {}
        self._skipped = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._result: asyncio.Future[Conn | None] = self._loop.create_future()
        self._stopped = False
        self._waiters = 0
        self.is_reported = False

    @property
    def is_over(self) -> bool:
        """True once it has a result, or nobody waits for one any more: nobody may join it then."""
        return self._result.done() or not self._waiters

    def add(
        self, addrs: Iterable[Multiaddr], refused: Mapping[Multiaddr, BaseException], num_skipped: int = 0
    ) -> None:
        """Puts in line what has not been tried yet, at most MAX_DIAL_ADDRS in all.

        Args:
            addrs: worth dialling; refused: those that are not, with the reason, and num_skipped: how many
                were not looked at; both for the report. One refused now may still be tried later.
        """
        self._skipped += num_skipped
        for addr, error in refused.items():
            if len(self._refused) < limits.MAX_DIAL_ADDRS:
                self._refused[addr] = error
        new = [addr for addr in addrs if addr not in self._causes]
        room = limits.MAX_DIAL_ADDRS - len(self._causes)
        self._skipped += max(0, len(new) - room)
        self._causes.update(dict.fromkeys(new[:room]))
        now = self._loop.time()
        first = len(self._causes)
        for order, (delay, addr) in enumerate(rank(new[:room]), first):
            heapq.heappush(self._queue, (now + delay, order, addr))
        self._start_due()

    def _start_due(self) -> None:
        """Starts what is due, and the next batch as well where nothing is in flight; sets the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._queue or self._result.done():
            return
        horizon = self._loop.time()
        if not self._tasks:
            horizon = max(horizon, self._queue[0][0])
        while self._queue and self._queue[0][0] <= horizon and len(self._tasks) < limits.MAX_DIALS_PER_PEER:
            task = self._loop.create_task(self._work(heapq.heappop(self._queue)[2]))
            self._tasks.add(task)
            task.add_done_callback(self._finished)
        if self._queue and len(self._tasks) < limits.MAX_DIALS_PER_PEER:
            self._timer = self._loop.call_at(self._queue[0][0], self._start_due)

    async def wait(self) -> Conn:
        """The first connection made. The dial is given up when the last waiter leaves.

        Raises: DialError with each address and its cause; SwarmClosed after `stop`.
        """
        self._waiters += 1
        try:
            async with asyncio.timeout(limits.DIAL_PEER_TIMEOUT_S):
                conn = await asyncio.shield(self._result)
        except TimeoutError:
            raise self._failure(f"no connection after {limits.DIAL_PEER_TIMEOUT_S:g} s") from None
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._cancel()
        if conn is None:
            raise SwarmClosed("the swarm was closed") if self._stopped else self._failure()
        return conn

    def stop(self) -> None:
        """Ends the dial, for the swarm closes."""
        self._stopped = True
        self._settle(None)

    async def _work(self, addr: Multiaddr) -> None:
        try:
            self._settle(await self._dial_one(addr, self._peer))
        except Exception as error:
            self._causes[addr] = error

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_due()
        if not self._tasks:
            self._settle(None)

    def _settle(self, conn: Conn | None) -> None:
        if not self._result.done():
            self._result.set_result(conn)
        self._cancel()

    def _cancel(self) -> None:
        """Ends what is in flight, except the task this runs in: that one is about to return."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    def _failure(self, reason: str = "") -> DialError:
        tried = {addr: error for addr, error in self._causes.items() if error is not None}
        causes = [*tried.items(), *(item for item in self._refused.items() if item[0] not in tried)]
        return DialError(self._peer, causes, reason, self._skipped)
