"""One dial to one peer, shared by all who ask for it at the same time.

Comes in: addresses, and a way to dial one. Goes out: the first connection, or each address with its cause.
Never tries an address twice, nor more than MAX_DIALS_PER_PEER at once; ends when nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.errors import DialError, SwarmClosed

if TYPE_CHECKING:
    from p2pcore.multiaddr import Multiaddr
    from p2pcore.peer_id import PeerId
    from p2pcore.swarm_conn import SwarmConn

DialOne = Callable[["Multiaddr", "PeerId"], Awaitable["SwarmConn"]]


class PeerDial:
    """The addresses of one peer, tried by up to MAX_DIALS_PER_PEER tasks until one answers."""

    __slots__ = ("_causes", "_dial_one", "_peer", "_queue", "_result", "_stopped", "_tasks", "_waiters")

    def __init__(self, peer: PeerId, dial_one: DialOne) -> None:
        self._peer = peer
        self._dial_one = dial_one
        self._queue: deque[Multiaddr] = deque()
        self._causes: dict[Multiaddr, BaseException | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._result: asyncio.Future[SwarmConn | None] = asyncio.get_running_loop().create_future()
        self._stopped = False
        self._waiters = 0

    @property
    def is_over(self) -> bool:
        """True once it has a result, or nobody waits for one any more: nobody may join it then."""
        return self._result.done() or not self._waiters

    def add(self, addrs: Iterable[Multiaddr], refused: Mapping[Multiaddr, BaseException]) -> None:
        """Puts in line what has not been tried yet, at most MAX_DIAL_ADDRS in all.

        Args:
            addrs: worth dialling; refused: those that are not, with the reason, for the report.
        """
        for addr, error in refused.items():
            if len(self._causes) < limits.MAX_DIAL_ADDRS:
                self._causes.setdefault(addr, error)
        for addr in addrs:
            if addr not in self._causes and len(self._causes) < limits.MAX_DIAL_ADDRS:
                self._causes[addr] = None
                self._queue.append(addr)
        loop = asyncio.get_running_loop()
        while self._queue and len(self._tasks) < limits.MAX_DIALS_PER_PEER:
            task = loop.create_task(self._work(self._queue.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    async def wait(self) -> SwarmConn:
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
        while True:
            try:
                self._settle(await self._dial_one(addr, self._peer))
                return
            except Exception as error:
                self._causes[addr] = error
            if not self._queue:
                return
            addr = self._queue.popleft()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._settle(None)

    def _settle(self, conn: SwarmConn | None) -> None:
        if not self._result.done():
            self._result.set_result(conn)
        self._cancel()

    def _cancel(self) -> None:
        """Ends what is in flight, except the task this runs in: that one is about to return."""
        self._queue.clear()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    def _failure(self, reason: str = "") -> DialError:
        causes = [(addr, error) for addr, error in self._causes.items() if error is not None]
        return DialError(self._peer, causes, reason)
