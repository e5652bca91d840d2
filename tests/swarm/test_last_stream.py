"""An end never overtakes data: what was sent before a connection ended is served whole.

Comes in: hosts of every muxer and security protocol. Goes out: claims about what handlers get, and when.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from harness import eventually, looped, settle
from hosts import BARE
from p2pcore import Conn, ConnectionClosed, Host, Stream

KINDS: list[dict[str, Any]] = [
    {},
    {"muxers": ["mplex"]},
    {"security": ["tls"]},
    {"security": ["tls"], "muxers": ["mplex"]},
    {"security": ["plaintext"]},
]
PROTOCOL = "/sink/1"


class Sink:
    """Serves PROTOCOL; `got` has what each stream gave to its end, `conns` whose they were."""

    def __init__(self, host: Host) -> None:
        self.got: list[bytes] = []
        self.conns: list[Conn | None] = []
        host.set_stream_handler(PROTOCOL, self.serve)

    async def serve(self, stream: Stream) -> None:
        self.conns.append(stream.conn)
        got = b""
        while piece := await stream.read():
            got += piece
        self.got.append(got)


async def opened(dialler: Host, listener: Host, *, is_old: bool) -> Conn:
    conn = await dialler.connect(listener.addrs_with_peer[0])
    if is_old:
        await eventually(lambda: listener.swarm.num_conns)
    return conn


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("is_old", [False, True])
@looped
async def test_a_last_message_before_an_orderly_close_is_served(kind: dict[str, Any], is_old: bool) -> None:
    async with Host(**BARE, **kind) as listener, Host(listen=(), **BARE, **kind) as dialler:
        sink = Sink(listener)
        for _ in range(5):
            conn = await opened(dialler, listener, is_old=is_old)
            stream = await conn.new_stream(PROTOCOL)
            await stream.write(b"hello")
            await stream.close_write()
            await conn.close()
        await eventually(lambda: len(sink.got) == 5)
        assert sink.got == [b"hello"] * 5
        assert all(conn is not None for conn in sink.conns)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@looped
async def test_a_last_message_before_a_host_is_left_is_served(kind: dict[str, Any]) -> None:
    data = os.urandom(200_000)
    async with Host(**BARE, **kind) as listener:
        sink = Sink(listener)
        async with Host(listen=(), **BARE, **kind) as dialler:
            conn = await opened(dialler, listener, is_old=False)
            for _ in range(3):
                stream = await conn.new_stream(PROTOCOL)
                await stream.write(data)
                await stream.close_write()
        await eventually(lambda: len(sink.got) == 3)
        assert sink.got == [data] * 3


@looped
async def test_bytes_without_an_end_are_served_and_then_the_connections_end() -> None:
    ends: list[object] = []

    async def serve(stream: Stream) -> None:
        ends.append(await stream.read_exactly(5))
        try:
            await stream.read()
        except ConnectionClosed as error:
            ends.append(error)

    async with Host(**BARE) as listener, Host(listen=(), **BARE) as dialler:
        listener.set_stream_handler(PROTOCOL, serve)
        conn = await opened(dialler, listener, is_old=False)
        await (await conn.new_stream(PROTOCOL)).write(b"hello")
        await conn.close()
        await eventually(lambda: len(ends) == 2)
        assert ends[0] == b"hello"
        assert isinstance(ends[1], ConnectionClosed)


@looped
async def test_a_handler_learns_that_nobody_hears_its_answer() -> None:
    errors: list[Exception] = []

    async def serve(stream: Stream) -> None:
        await stream.read()
        try:
            await stream.write(b"thanks")
        except ConnectionClosed as error:
            errors.append(error)

    async with Host(**BARE) as listener, Host(listen=(), **BARE) as dialler:
        listener.set_stream_handler(PROTOCOL, serve)
        conn = await opened(dialler, listener, is_old=False)
        stream = await conn.new_stream(PROTOCOL)
        await stream.write(b"hello")
        await stream.close_write()
        await conn.close()
        await eventually(lambda: errors)


@looped
async def test_connected_comes_first_then_the_streams_then_disconnected() -> None:
    order: list[str] = []

    class Teller:
        def connected(self, network: object, conn: Conn) -> None:
            order.append("connected")

        def disconnected(self, network: object, conn: Conn) -> None:
            order.append("disconnected")

        def listen(self, network: object, addr: object) -> None: ...
        def listen_close(self, network: object, addr: object) -> None: ...

    async with Host(**BARE) as listener, Host(listen=(), **BARE) as dialler:
        sink = Sink(listener)
        serve = listener.swarm._streams.serve

        def serving(stream: Stream) -> None:
            order.append("stream")
            serve(stream)

        listener.swarm._serve = serving
        listener.swarm.notify(Teller())
        conn = await opened(dialler, listener, is_old=False)
        for _ in range(2):
            stream = await conn.new_stream(PROTOCOL)
            await stream.write(b"hello")
            await stream.close_write()
        await conn.close()
        await eventually(lambda: len(sink.got) == 2 and "disconnected" in order)
        assert order == ["connected", "stream", "stream", "disconnected"]
        assert not listener.swarm.num_conns
        await settle()


@looped
async def test_a_write_that_waits_is_finished_by_close() -> None:
    data = os.urandom(3_000_000)  # more than the window and the socket take
    async with Host(**BARE) as listener, Host(listen=(), **BARE) as dialler:
        sink = Sink(listener)
        conn = await opened(dialler, listener, is_old=True)
        stream = await conn.new_stream(PROTOCOL)
        writing = asyncio.ensure_future(stream.write(data))
        await settle()
        assert not writing.done()
        await stream.close_write()
        closing = asyncio.ensure_future(conn.close())
        await settle()
        assert conn.is_closed
        with pytest.raises(ConnectionClosed):
            await conn.new_stream(PROTOCOL)
        await closing
        await writing
        await eventually(lambda: sink.got)
        assert sink.got == [data]
