"""Gives out the relayed connections that come for it: satisfies interfaces.RawListener.

Comes in: circuits that a relay has offered on a stop stream. Goes out: raw connections. It keeps few of them,
none for longer than RELAY_ACCEPT_TIMEOUT_S, and says so to whoever offers; `close` really ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from p2pcore import limits
from p2pcore.errors import ListenerClosed

if TYPE_CHECKING:
    from p2pcore.relay.conn import RelayedConn
    from p2pcore.values.multiaddr import Multiaddr


class RelayListener:
    """Listens behind one relay, or behind all where reservations are held.

    Args:
        multiaddr: `/…/p2p/RELAY/p2p-circuit`, or `/p2p-circuit`.
        closed: awaited once, when it is closed: lets go of the reservation.
    """

    def __init__(self, multiaddr: Multiaddr, closed: Callable[[RelayListener], Awaitable[None]]) -> None:
        self._multiaddr = multiaddr
        self._closed = closed
        self._offers: dict[RelayedConn, asyncio.Future[bool]] = {}
        self._changed = asyncio.Event()
        self._is_finished = False
        self._is_closed = False

    @property
    def multiaddr(self) -> Multiaddr:
        """As it was asked for; what peers are told is RelayTransport.announced."""
        return self._multiaddr

    async def offer(self, conn: RelayedConn) -> bool:
        """Waits for `accept` to take `conn`; False: it did not, in time or at all, and never will."""
        if self._is_finished or len(self._offers) >= limits.MAX_RELAY_WAITING:
            return False
        taken = self._offers[conn] = asyncio.get_running_loop().create_future()
        self._wake()
        try:
            async with asyncio.timeout(limits.RELAY_ACCEPT_TIMEOUT_S):
                return await asyncio.shield(taken)
        except TimeoutError:
            return taken.done() and taken.result()  # taken just as the time was up
        finally:
            self._offers.pop(conn, None)

    async def accept(self) -> RelayedConn:
        """The next connection, oldest first. Raises ListenerClosed."""
        while True:
            if self._offers:
                conn, taken = next(iter(self._offers.items()))
                del self._offers[conn]
                taken.set_result(True)
                return conn
            if self._is_finished:
                raise ListenerClosed(f"the listener on {self._multiaddr} is closed")
            self._changed.clear()
            await self._changed.wait()

    async def rebind(self) -> None:
        """Does nothing: the reservation is kept by a task of its own. Raises ListenerClosed."""
        if self._is_closed:
            raise ListenerClosed(f"the listener on {self._multiaddr} is closed")

    def finish(self) -> None:
        """Takes no more; `accept` gives out what waits, then raises ListenerClosed."""
        self._is_finished = True
        self._wake()

    async def close(self) -> None:
        """Refuses what waits, ends a pending accept, lets go of the reservation. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for taken in self._offers.values():
            taken.set_result(False)
        self._offers.clear()
        self.finish()
        await self._closed(self)

    def _wake(self) -> None:
        self._changed.set()
