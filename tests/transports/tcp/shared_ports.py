"""A shared port for tests, first bytes of connections, and a listener with scripted errors.

Comes in: kinds. Goes out: ports, and sockets that have sent bytes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nodes import LOOPBACK, open_socket, port_of
from p2pcore.manet.listener import MaListener
from p2pcore.transports.tcp.shared import Kind, SharedPort
from p2pcore.values.multiaddr import Multiaddr

PLAIN = b"\x13/multistream/1.0.0\n"
HTTP = b"GET / HTTP/1.1\r\n\r\n"
TLS = bytes.fromhex("1603010200010001fc0303") + bytes(64)
FIRST = {Kind.PLAIN: PLAIN, Kind.HTTP: HTTP, Kind.TLS: TLS}


class Counting:
    """A MaListener that counts its connections, and first fails as a script says."""

    def __init__(self, addr: Multiaddr = LOOPBACK) -> None:
        self.inner = MaListener.bind(addr)
        self.errors: list[int] = []
        self.given = 0
        self.rebinds = 0

    @property
    def multiaddr(self) -> Multiaddr:
        return self.inner.multiaddr

    async def accept(self) -> Any:
        if self.errors:
            raise OSError(self.errors.pop(0), "scripted")
        conn = await self.inner.accept()
        self.given += 1
        return conn

    async def rebind(self) -> None:
        self.rebinds += 1
        await self.inner.rebind()

    def pause(self) -> None:
        self.inner.pause()

    def resume(self) -> None:
        self.inner.resume()

    def drain(self) -> None:
        self.inner.drain()

    async def close(self) -> None:
        await self.inner.close()


@asynccontextmanager
async def shared(*kinds: Kind, **options: Any) -> AsyncIterator[tuple[SharedPort, Counting, Any]]:
    """A port, the listener it accepts from, and its listeners (one, or a list)."""
    counting = Counting()
    port = SharedPort(counting, **options)
    listeners = [port.listen(kind) for kind in kinds]
    try:
        yield port, counting, listeners[0] if len(kinds) == 1 else listeners
    finally:
        for listener in listeners:
            await listener.close()


async def said(addr: Multiaddr, data: bytes) -> socket.socket:
    """A connection that has sent `data`."""
    sock = await open_socket(addr)
    await asyncio.get_running_loop().sock_sendall(sock, data)
    return sock


def is_refused(addr: Multiaddr) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port_of(addr))) == errno.ECONNREFUSED
