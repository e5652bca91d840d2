"""ping: both roles, its vector, and every bad input."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness import eventually, looped, seconds
from hosts import Pair, pair
from p2pcore import DeadlineExceeded, IncompleteRead, RemoteProtocolError, Stream, StreamReset, codes, limits
from p2pcore.protocols import ping

VECTOR = bytes.fromhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
SERVES = {"ping": True}


async def open_ping(p: Pair) -> Stream:
    return await p.conn.new_stream(ping.PROTOCOL)


@looped
async def test_the_vector_comes_back_as_often_as_it_is_sent() -> None:
    async with pair(SERVES) as p:
        stream = await open_ping(p)
        for _ in range(3):
            await stream.write(VECTOR)
            assert await stream.read_exactly(32) == VECTOR
        for byte in VECTOR:
            await stream.write(bytes([byte]))
        assert await stream.read_exactly(32) == VECTOR
        await stream.close_write()
        assert await stream.read() == b""


@looped
async def test_pings_give_a_round_trip_each() -> None:
    async with pair(SERVES) as p:
        rtts = await p.dialer.ping(p.conn, 5)
        assert len(rtts) == 5
        assert all(0 < rtt < 5 for rtt in rtts)
        await eventually(lambda: not p.conn.num_streams and not p.server.swarm.num_handlers_running)


@looped
async def test_fewer_than_32_bytes_and_the_end_are_not_echoed() -> None:
    async with pair(SERVES) as p:
        stream = await open_ping(p)
        await stream.write(VECTOR + VECTOR[:31])
        await stream.close_write()
        assert await stream.read_exactly(32) == VECTOR
        assert await stream.read() == b""


@looped
async def test_a_third_stream_of_one_peer_is_refused_until_one_ends() -> None:
    async with pair(SERVES) as p:
        streams = [await open_ping(p) for _ in range(limits.MAX_PING_STREAMS)]
        for stream in streams:
            await ping.ping(stream)
        with pytest.raises(StreamReset) as caught:
            await ping.ping(await open_ping(p))
        assert caught.value.code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        await streams[0].close()
        await eventually(lambda: p.server.swarm.num_handlers_running == 1)
        assert await ping.ping(await open_ping(p)) > 0


@looped
async def test_a_silent_stream_ends_and_a_busy_one_goes_on() -> None:
    """go-libp2p ends it after 30 s however busy it is."""

    async with pair() as p:
        p.server.set_stream_handler(ping.PROTOCOL, ping.PingServer(idle_timeout_s=seconds(1.0)).serve)
        busy, silent = await open_ping(p), await open_ping(p)
        await ping.ping(silent)
        ended = asyncio.create_task(silent.read())
        while not ended.done():
            await ping.ping(busy)
            await asyncio.sleep(0.01)
        assert await ended == b""
        await ping.ping(busy)


async def serve_with(p: Pair, handler: Any) -> None:
    p.server.set_stream_handler(ping.PROTOCOL, handler)


@looped
async def test_a_wrong_answer_resets_the_stream() -> None:
    codes_seen: list[int] = []

    async def liar(stream: Stream) -> None:
        data = await stream.read_exactly(32)
        await stream.write(data[::-1])
        try:
            await stream.read()
        except StreamReset as error:
            codes_seen.append(error.code)

    async with pair() as p:
        await serve_with(p, liar)
        with pytest.raises(RemoteProtocolError):
            await p.dialer.ping(p.conn)
        await eventually(lambda: codes_seen == [codes.STREAM_PROTOCOL_VIOLATION])


@looped
async def test_no_answer_is_a_timeout() -> None:
    async def mute(stream: Stream) -> None:
        await stream.read_exactly(33)

    async with pair() as p:
        await serve_with(p, mute)
        with pytest.raises(DeadlineExceeded):
            await p.dialer.ping(p.conn, timeout_s=0.05)
        assert p.conn.num_streams == 0


@looped
async def test_a_peer_that_ends_the_stream_after_each_ping_gets_a_new_one() -> None:
    """js-libp2p may."""

    opened = 0

    async def once(stream: Stream) -> None:
        nonlocal opened
        opened += 1
        await stream.write(await stream.read_exactly(32))

    async with pair() as p:
        await serve_with(p, once)
        assert len(await p.dialer.ping(p.conn, 3)) == 3
        assert opened == 3


@looped
async def test_a_peer_that_ends_the_stream_at_once_is_not_asked_for_ever() -> None:
    async def never(stream: Stream) -> None:
        pass

    async with pair() as p:
        await serve_with(p, never)
        with pytest.raises(IncompleteRead):
            await p.dialer.ping(p.conn, 3)


@looped
async def test_one_peer_is_pinged_on_one_stream_at_a_time() -> None:
    at_once: list[int] = []
    async with pair() as p:
        server = ping.PingServer()

        async def counted(stream: Stream) -> None:
            at_once.append(p.server_conn.num_streams)
            await server.serve(stream)

        await serve_with(p, counted)
        await asyncio.gather(*(p.dialer.ping(p.conn, 2) for _ in range(5)))
        assert max(at_once) == 1
