"""A connection that ends inside a record or frame is closed, like one that ends between two.

Comes in: two hosts with a proxy between them, which passes a piece of the next bytes on and then ends the
connection. Goes out: the error of a read. Whoever tries again after a lost connection tells it by its type.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import eventually, looped
from hosts import BARE
from p2pcore import ConnectionClosed, GoAway, Host, RemoteProtocolError, Stream
from p2pcore.values.multiaddr import Multiaddr

PROTOCOL = "/test/1"


class Proxy:
    """Passes bytes on in both directions, until it is told to cut what the server sends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.room: int | None = None

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        up = asyncio.ensure_future(self._pass(reader, far_writer, cuts=False))
        await self._pass(far_reader, writer, cuts=True)
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        far_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cuts: bool) -> None:
        while piece := await reader.read(65536):
            if cuts and self.room is not None:
                piece = piece[: self.room]
            writer.write(piece)
            await writer.drain()
            if cuts and self.room is not None:
                break
        writer.close()


@asynccontextmanager
async def proxied(transport: str, security: str, muxer: str) -> AsyncIterator[tuple[Proxy, Stream, Stream]]:
    """A proxy, the dialler's stream and the server's."""
    options: dict[str, Any] = BARE | {"security": [security], "muxers": [muxer]}
    suffix = {"tcp": "", "ws": "/ws"}[transport]
    served: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    async def serve(stream: Stream) -> None:
        served.set_result(stream)
        await stream.wait_closed()

    async with (
        Host(listen=[f"/ip4/127.0.0.1/tcp/0{suffix}"], **options) as server,
        Host(listen=(), **options) as dialer,
    ):
        server.set_stream_handler(PROTOCOL, serve)
        proxy = Proxy(int(server.addrs[0]["tcp"]))
        listening = await asyncio.start_server(proxy.accepted, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        conn = await dialer.swarm.dial_peer(server.peer_id, [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}{suffix}")])
        stream = await conn.new_stream(PROTOCOL)
        await stream.write(b"x")
        far = await served
        await far.write(b"y")
        assert await stream.read_exactly(1) == b"y"
        yield proxy, stream, far
        listening.close()


async def read_all(stream: Stream) -> None:
    """Reads what has come whole, up to the end. Raises: what it ended with; an end in order is none."""
    while await stream.read():
        pass


@pytest.mark.parametrize("kept", [1, 13, 200])
@pytest.mark.parametrize("muxer", ["yamux", "mplex"])
@pytest.mark.parametrize("security", ["noise", "tls", "plaintext"])
@pytest.mark.parametrize("transport", ["tcp", "ws"])
@looped
async def test_a_connection_that_ends_anywhere_is_a_closed_connection(
    transport: str, security: str, muxer: str, kept: int
) -> None:
    async with proxied(transport, security, muxer) as (proxy, stream, far):
        proxy.room = kept
        await far.write(bytes(1000))
        with pytest.raises(ConnectionClosed) as caught:
            await read_all(stream)
        assert not isinstance(caught.value, GoAway | RemoteProtocolError)
        await eventually(lambda: stream.conn.is_closed)
        with pytest.raises(ConnectionClosed):
            await stream.conn.new_stream(PROTOCOL)
