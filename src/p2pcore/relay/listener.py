"""Accepts relayed connections: satisfies interfaces.RawListener.

Comes in: circuits that a relay has offered on a stop stream. Goes out: raw connections. Only a few may wait,
none of them longer than RELAY_ACCEPT_TIMEOUT_S; the caller of `offer` learns the result.
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
    """Listens behind one relay, or behind all relays where we hold reservations.

    Args:
        multiaddr: `/…/p2p/RELAY/p2p-circuit`, or `/p2p-circuit`.
        closed: awaited once, when the listener is closed; it gives the reservation up.

    Attributes:
        is_paused: see `pause`.
    """

    def __init__(self, multiaddr: Multiaddr, closed: Callable[[RelayListener], Awaitable[None]]) -> None:
        self._multiaddr = multiaddr
        self._closed = closed
        self._offers: dict[RelayedConn, asyncio.Future[bool]] = {}
        self._changed = asyncio.Event()
        self._is_draining = False
        self.is_paused = False
        self._is_closed = False

    @property
    def multiaddr(self) -> Multiaddr:
        """The address of `listen`. The addresses for peers come from RelayTransport.announced."""
        return self._multiaddr

    async def offer(self, conn: RelayedConn) -> bool:
        """Waits until `accept` takes `conn`. False: it was not taken in time, or the listener pauses."""
        if self._is_draining or self.is_paused or len(self._offers) >= limits.MAX_RELAY_WAITING:
            return False
        taken = self._offers[conn] = asyncio.get_running_loop().create_future()
        self._wake()
        try:
            async with asyncio.timeout(limits.RELAY_ACCEPT_TIMEOUT_S):
                return await asyncio.shield(taken)
        except TimeoutError:
            return taken.done() and taken.result()  # `accept` may take it just when the time is over
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
            if self._is_draining:
                raise ListenerClosed(f"the listener on {self._multiaddr} is closed")
            self._changed.clear()
            await self._changed.wait()

    async def rebind(self) -> None:
        """Does nothing: a ReservationKeeper keeps the reservation. Raises ListenerClosed."""
        if self._is_closed:
            raise ListenerClosed(f"the listener on {self._multiaddr} is closed")

    def pause(self) -> None:
        """See interfaces.RawListener: new offers are refused; those that wait already are accepted."""
        self.is_paused = True

    def resume(self) -> None:
        """See interfaces.RawListener."""
        self.is_paused = False

    def drain(self) -> None:
        """Takes no more offers; `accept` returns those that wait, then raises ListenerClosed."""
        self._is_draining = True
        self._wake()

    async def close(self) -> None:
        """Refuses waiting offers; ends a pending accept; gives the reservation up. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for taken in self._offers.values():
            taken.set_result(False)
        self._offers.clear()
        self.drain()
        await self._closed(self)

    def _wake(self) -> None:
        self._changed.set()
