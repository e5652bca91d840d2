"""A real Wire whose other end is a plain socket, for tests that play the peer byte by byte.

Goes out: the mailbox on top of the wire, and the socket. Closes both at the end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from p2pcore._fast.chain.wire import Wire


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Any, socket.socket]]:
    """The mailbox of a Wire, and the peer's end as a socket that does not block."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    wire = Wire(loop)
    ours.setblocking(False)
    theirs.setblocking(False)
    await loop.create_connection(lambda: wire, sock=ours)
    try:
        yield wire.mailbox, theirs
    finally:
        wire.abort()
        await wire.wait_closed()
        theirs.close()


async def received(theirs: socket.socket, n: int) -> bytes:
    """Exactly n bytes from the peer's end."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < n:
        chunk = await loop.sock_recv(theirs, n - len(data))
        assert chunk, f"{len(data)} of {n} bytes"
        data += chunk
    return data
