"""One dial to one peer. All callers that want this peer at the same time share it.

Comes in: addresses, and a function that dials one. Goes out: the first connection, or each address with its
cause. The ranker decides when each address is dialled. If no address is being dialled, the next one starts at
once. Never tries an address twice, never dials more than MAX_DIALS_PER_PEER at once. The dial ends when no
caller waits. Only the event loop gives the time.
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
Ended = Callable[[bool, int, float, float], None]
"""Called once: whether it has worked, the number of addresses dialled, seconds, and see News.peer_dialled."""


class PeerDial:
    """The addresses of one peer, and one task for each address that is being dialled.

    Attributes:
        is_reported: True once the owner has reported the failure, so that it does so only once.
    """

    __slots__ = (
        "_aborted",
        "_began_at",
        "_causes",
        "_dial_one",
        "_ended",
        "_loop",
        "_num_dialled",
        "_peer",
        "_queue",
        "_refused",
        "_result",
        "_skipped",
        "_tasks",
        "_timer",
        "_waiters",
        "is_reported",
    )

    def __init__(self, peer: PeerId | None, dial_one: DialOne, ended: Ended = lambda *_: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._began_at = self._loop.time()
        self._num_dialled = 0
        self._peer = peer
        self._dial_one = dial_one
        self._queue: list[tuple[float, int, Multiaddr]] = []  # a heap: due time, position, address
        self._causes: dict[Multiaddr, BaseException | None] = {}
        self._refused: dict[Multiaddr, BaseException] = {}
        self._skipped = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._result: asyncio.Future[Conn | None] = self._loop.create_future()
        self._aborted = False
        self._waiters = 0
        self.is_reported = False

    @property
    def is_over(self) -> bool:
        """True once it has a result, or no caller waits. Then no caller may join it."""
        return self._result.done() or not self._waiters

    def add(
        self, addrs: Iterable[Multiaddr], refused: Mapping[Multiaddr, BaseException], num_skipped: int = 0
    ) -> None:
        """Queues the addresses that have not been tried yet, at most MAX_DIAL_ADDRS in all.

        Args:
            addrs: the addresses to dial.
            refused: for the report: the addresses that are not dialled, each with the reason. A later call
                may still dial them.
            num_skipped: for the report: how many addresses were not looked at.
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
        """Starts the addresses that are due, or the next ones if none is being dialled. Sets the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._queue or self._result.done():
            return
        horizon = self._loop.time()
        if not self._tasks:
            horizon = max(horizon, self._queue[0][0])
        while self._queue and self._queue[0][0] <= horizon and len(self._tasks) < limits.MAX_DIALS_PER_PEER:
            due, _, addr = heapq.heappop(self._queue)
            self._num_dialled += 1
            task = self._loop.create_task(self._work(addr, max(0.0, due - self._began_at)))
            self._tasks.add(task)
            task.add_done_callback(self._finished)
        if self._queue and len(self._tasks) < limits.MAX_DIALS_PER_PEER:
            self._timer = self._loop.call_at(self._queue[0][0], self._start_due)

    async def wait(self) -> Conn:
        """The first connection that is made. The dial ends when the last waiter is cancelled.

        Raises: DialError: all addresses failed; it has the cause of each. SwarmClosed: after `abort`.
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
            raise SwarmClosed("the swarm was closed") if self._aborted else self._failure()
        return conn

    def abort(self) -> None:
        """Ends the dial at once, because the swarm closes."""
        self._aborted = True
        self._settle(None)

    async def _work(self, addr: Multiaddr, delay_s: float) -> None:
        try:
            self._settle(await self._dial_one(addr, self._peer), delay_s)
        except Exception as error:
            if error.__traceback__ is not None:  # its first frame is this one, which refers to us
                error.__traceback__ = error.__traceback__.tb_next
            self._causes[addr] = error

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_due()
        if not self._tasks:
            self._settle(None)

    def _settle(self, conn: Conn | None, delay_s: float = 0.0) -> None:
        if not self._result.done():
            self._result.set_result(conn)
            self._ended(conn is not None, self._num_dialled, self._loop.time() - self._began_at, delay_s)
        self._cancel()

    def _cancel(self) -> None:
        """Cancels the dials that run, except the current task, which is about to return."""
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
