"""Works of two hosts in one process, over TCP on the loopback."""

from __future__ import annotations

import asyncio
from typing import Self

from p2pcore import Conn, Host, tune_loop

ECHO = "/echo/1.0.0"


class Watch:
    """A notifiee that counts connections; a caller can wait for a number of them."""

    def __init__(self) -> None:
        self._open = 0
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    async def until(self, wanted: int) -> None:
        """Returns when there are `wanted` connections. It sleeps until then, so nothing else is counted."""
        if self._open != wanted:
            self._wanted = wanted
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _changed(self, by: int) -> None:
        self._open += by
        if self._waiter is not None and self._open == self._wanted:
            self._waiter.set_result(None)
            self._waiter = None

    def connected(self, network: object, conn: object) -> None:
        """One more."""
        self._changed(1)

    def disconnected(self, network: object, conn: object) -> None:
        """One less."""
        self._changed(-1)

    def listen(self, network: object, addr: object) -> None:
        """Does not matter here."""

    def listen_close(self, network: object, addr: object) -> None:
        """Does not matter here."""


class Hosts:
    """A host that listens and a host that dials. They do not identify each other, so nothing else runs."""

    def __init__(self, security: str = "noise", metrics: bool = True) -> None:
        self.server = Host(identify=False, echo=True, security=(security,), metrics=metrics)
        self.dialer = Host(listen=(), identify=False, security=(security,), metrics=metrics)
        self.watch = Watch()
        self.server.notify(self.watch)

    @classmethod
    async def start(cls, security: str = "noise", metrics: bool = True) -> Self:
        """Both are up."""
        self = cls(security, metrics)
        await self.open()
        return self

    async def open(self) -> None:
        """Starts both."""
        tune_loop(spin_s=0)  # whether a loop looks for an answer before it sleeps depends on the clock
        await self.server.start()
        await self.dialer.start()
        self._target = self.server.addrs_with_peer[0]

    async def dial(self) -> Conn:
        """A new connection, seen by both sides."""
        conn = await self.dialer.swarm.dial_addr(self._target)
        await self.watch.until(1)
        return conn

    async def close(self) -> None:
        """Closes both."""
        await self.dialer.close()
        await self.server.close()


class Connections(Hosts):
    """Complete connections."""

    async def once(self) -> None:
        """One connection, until both sides have forgotten it."""
        conn = await self.dial()
        await conn.close()
        await self.watch.until(0)


class Echoes(Hosts):
    """Streams on one connection."""

    async def open(self) -> None:
        """Starts both, and connects."""
        await super().open()
        self._conn = await self.dial()

    async def once(self) -> None:
        """One stream: 32 bytes there and back, and an orderly end."""
        stream = await self._conn.new_stream(ECHO)
        await stream.write(bytes(32))
        await stream.close_write()
        await stream.read_exactly(32)
        if await stream.read():
            raise AssertionError("more came back than was sent")
        await stream.close()
