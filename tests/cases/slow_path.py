"""A TCP path that hands on one byte at a time, now and then with a pause: what an end must not overtake.

Comes in: an address to lead to. Goes out: an address that leads there. Nothing is lost; each direction ends
when its source has ended and all of it has been handed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2pcore import Multiaddr

BYTES = 1
PAUSE_EVERY = 256


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: int) -> None:
    handed = 0
    try:
        while data := await reader.read(piece):
            writer.write(data)
            await writer.drain()
            handed += 1
            if handed % PAUSE_EVERY == 0:
                await asyncio.sleep(0.001)
        writer.write_eof()
    except OSError:
        writer.transport.abort()


@asynccontextmanager
async def slow_path(addr: Multiaddr, piece: int = BYTES) -> AsyncIterator[Multiaddr]:
    """An address whose connections lead to `addr` (/ip4/…/tcp/…/p2p/…), at most `piece` bytes at a time."""
    host, port = str(addr).split("/")[2], int(str(addr).split("/")[4])
    tasks: set[asyncio.Task[None]] = set()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(_hand_on(source, sink, piece))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(joined, "127.0.0.1", 0)
    near = server.sockets[0].getsockname()[1]
    try:
        yield Multiaddr("/".join(["", "ip4", "127.0.0.1", "tcp", str(near), *str(addr).split("/")[5:]]))
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
