"""Keeps the connection to one peer: dials it, and dials again when it is lost, for as long as it is wanted.

Comes in: a peer, its addresses, the news that a connection has come or gone. Goes out: dials with growing
pauses, a report when the connection is lost and when it is back. It has a timer or a task only while there is
no connection.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from p2pcore import limits
from p2pcore.errors import ConnectionClosed, P2PError

if TYPE_CHECKING:
    from p2pcore.resources.held import HeldConn
    from p2pcore.values.multiaddr import Multiaddr
    from p2pcore.values.peer_id import PeerId

logger = logging.getLogger("p2pcore.resources")

Dial = Callable[["PeerId", "tuple[Multiaddr, ...]"], Awaitable["HeldConn"]]
"""Gives a connection to the peer: the present one, or a new one."""


class KeepReports(Protocol):
    """Hears what becomes of kept peers."""

    def keep_lost(self, peer: PeerId, error: BaseException | None) -> None:
        """There is no connection to `peer`: it was lost, or the first dial failed. Dials follow."""

    def keep_restored(self, peer: PeerId, conn: HeldConn) -> None:
        """There is a connection to `peer` again."""


class Keeper:
    """Keeps one peer. `start` begins; `stop` ends it and leaves a connection open.

    Args:
        dial: see Dial; reports: hears of losses.

    Attributes:
        peer: the peer. addrs: where to dial it; a later dial uses what they are then.
        num_holders: how many want it. The owner counts them.
    """

    def __init__(self, peer: PeerId, addrs: Iterable[Multiaddr], dial: Dial, reports: KeepReports) -> None:
        self.peer = peer
        self.addrs = tuple(addrs)
        self._dial = dial
        self._reports = reports
        self._pause_s = 0.0
        self._since: float | None = None  # when the present connection came
        self._is_lost = False
        self._tried_at = -math.inf
        self._waiters: list[asyncio.Future[None]] = []
        self.num_holders = 1
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Dials now, unless there is a connection."""
        self._attempt()

    def halt(self) -> None:
        """Dials no more. Call `stop` after it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """As `stop`, without waiting for a dial that is being cancelled."""
        self.halt()
        self._task = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionClosed(f"{self.peer} is not kept any more"))

    async def stop(self) -> None:
        """Dials no more. Idempotent."""
        task = self._task
        self.end()
        if task is not None:
            await asyncio.wait([task])

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as it has been told."""
        return self._since is not None

    async def wait_joined(self) -> None:
        """Returns when the next connection comes. Raises ConnectionClosed: the peer is not kept any more."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wake(self) -> None:
        """There is something new to try: the dial that waits begins now, or a second after the last one."""
        if self._timer is None:
            return
        loop = asyncio.get_running_loop()
        at = max(loop.time(), self._tried_at + limits.KEEP_PAUSE_MIN_S)
        if at < self._timer.when():
            self._timer.cancel()
            self._timer = loop.call_at(at, self._attempt)

    def joined(self, conn: HeldConn) -> None:
        """There is a connection."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._is_lost:
            self._is_lost = False
            self._reports.keep_restored(self.peer, conn)

    def left(self, error: BaseException | None) -> None:
        """The last connection has ended. One that has lived long enough makes the next pause the shortest."""
        since, self._since = self._since, None
        if since is not None and asyncio.get_running_loop().time() - since >= limits.KEEP_STEADY_S:
            self._pause_s = 0.0
        self._lost(error)

    def _lost(self, error: BaseException | None) -> None:
        """Dials again after a pause. It is not the same for all: the clients of a peer must not come
        together."""
        if not self._is_lost:
            self._is_lost = True
            self._reports.keep_lost(self.peer, error)
        if self._timer is None and self._task is None:
            self._pause_s = min(max(2 * self._pause_s, limits.KEEP_PAUSE_MIN_S), limits.KEEP_PAUSE_MAX_S)
            wait = self._pause_s * random.uniform(0.5, 1.5)
            logger.debug("%s is lost, dialled again in %.1f s: %s", self.peer, wait, error)
            self._timer = asyncio.get_running_loop().call_later(wait, self._attempt)

    def _attempt(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        self._tried_at = loop.time()
        self._task = loop.create_task(self._try())

    async def _try(self) -> None:
        error: Exception | None = None
        try:
            conn = await self._dial(self.peer, self.addrs)
        except (P2PError, OSError) as failure:
            error = failure
        except Exception as failure:
            logger.exception("dialling the kept peer %s raised", self.peer)
            error = failure
        if self._task is None:
            return  # stopped
        self._task = None
        if error is not None:
            self._lost(error)
        elif self._since is None and conn.is_closed:
            self._lost(None)
        else:
            self.joined(conn)
