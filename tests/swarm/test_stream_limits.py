"""Limits on streams and handlers of a running node: reached, refused with the code, and named."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness import eventually, looped
from p2pcore import Conn, Host, Limits, PrivateKey, RefusedByPeer, Stream, codes

HANG = "/hang"


class Hanging:
    """A handler that runs until `release` is set."""

    def __init__(self) -> None:
        self.running: list[Stream] = []
        self.release = asyncio.Event()

    async def __call__(self, stream: Stream) -> None:
        self.running.append(stream)
        try:
            await self.release.wait()
        finally:
            self.running.remove(stream)


@asynccontextmanager
async def served(limits: Limits | None = None, **caps: Any) -> Any:
    """A server that hangs and echoes, with a client that knows how to reach it."""
    handler = Hanging()
    async with Host(limits=limits, identify=False, echo=True) as server:
        server.set_stream_handler(HANG, handler, cancel=False, **caps)
        async with Host(listen=(), identify=False) as client:
            yield server, client, handler
            handler.release.set()


async def opened(conn: Conn, handler: Hanging, count: int) -> list[Stream]:
    """`count` streams whose handlers run."""
    already = len(handler.running)
    streams = [await conn.new_stream(HANG) for _ in range(count)]
    await eventually(lambda: len(handler.running) == already + count)
    return streams


async def refusal(conn: Conn, protocol: str = HANG) -> RefusedByPeer:
    stream = await conn.new_stream(protocol)
    with pytest.raises(RefusedByPeer) as caught:
        await stream.read()
    return caught.value


def use(server: Host, limit: str) -> tuple[int | None, int | None, int]:
    found = {each.limit: each for each in server.limits_report()}[limit]
    return found.used, found.maximum, found.refused


@looped
async def test_handlers_of_one_peer_are_limited_on_all_its_connections(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(Limits(max_handlers_per_peer=3)) as (server, client, handler):
        one = await client.swarm.dial_addr(server.addrs_with_peer[0])
        two = await client.swarm.dial_addr(server.addrs_with_peer[0])
        streams = [*await opened(one, handler, 2), *await opened(two, handler, 1)]
        error = await refusal(two)
        assert error.code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        assert use(server, "max_handlers_per_peer") == (3, 3, 1)
        expected = f"refused: 3 of 3 handlers for {client.peer_id} (Limits.max_handlers_per_peer)"
        assert expected in caplog.messages
        async with Host(listen=(), identify=False) as other:
            assert await other.echo(server.addrs_with_peer[0], b"served") == b"served"
        for stream in streams:
            stream.reset()
        await refusal(one)  # its handlers still run
        handler.release.set()
        await eventually(lambda: not handler.running)
        assert await client.echo(one, b"again") == b"again"


@looped
async def test_a_handler_that_outlives_its_connection_counts_for_its_peer() -> None:
    async with served(Limits(max_handlers_per_peer=1)) as (server, client, handler):
        conn = await client.connect(server.addrs_with_peer[0])
        await opened(conn, handler, 1)
        await conn.close()
        await eventually(lambda: not server.swarm.num_conns)
        again = await client.swarm.dial_addr(server.addrs_with_peer[0])
        await refusal(again)
        await again.close()
        await eventually(lambda: not server.swarm.num_conns)
        assert server.swarm.ledger.num_peers == 1
        handler.release.set()
        await eventually(lambda: not server.swarm.ledger.num_peers)


@looped
async def test_handlers_in_all_are_limited_like_streams(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Limits(max_streams=2)) as (server, client, handler):
        conn = await client.connect(server.addrs_with_peer[0])
        for stream in await opened(conn, handler, 2):
            stream.reset()
        await eventually(lambda: not server.swarm.ledger.num_streams)
        assert (await refusal(conn)).code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        assert use(server, "max_streams")[1:] == (2, 1)
        assert "refused: 2 of 2 streams and handlers (Limits.max_streams)" in caplog.messages


@pytest.mark.parametrize("limit", ["max_streams", "max_streams_per_peer", "max_streams_per_conn"])
@looped
async def test_streams_are_limited_and_the_limit_is_named(
    limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Limits(**{limit: 4})) as (server, client, handler):
        one = await client.swarm.dial_addr(server.addrs_with_peer[0])
        two = await client.swarm.dial_addr(server.addrs_with_peer[0])
        if limit == "max_streams_per_conn":
            streams = await opened(one, handler, 4)
            last = one
            assert await client.echo(two, b"another connection") == b"another connection"
        else:
            streams = [*await opened(one, handler, 2), *await opened(two, handler, 2)]  # RM-T12
            last = two
        assert (await refusal(last)).code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        assert use(server, limit)[1:] == (4, 1)
        assert any(f"Limits.{limit}" in text and "4 of 4" in text for text in caplog.messages)
        streams[0].reset()
        handler.release.set()
        await eventually(lambda: not handler.running)
        assert await client.echo(last, b"again") == b"again"


@looped
async def test_memory_is_limited_and_the_limit_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Limits(memory=1 << 20)) as (server, client, handler):
        server.swarm.ledger.on_state = None  # else the connection manager makes room
        conn = await client.connect(server.addrs_with_peer[0])
        for stream in await opened(conn, handler, 4):
            await stream.write(bytes(250_000))
        await eventually(lambda: server.swarm.ledger.unread == 1_000_000)
        assert (await refusal(conn)).code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        used, maximum, refused = use(server, "memory")
        assert used is not None
        assert used > 1_000_000
        assert (maximum, refused) == (1 << 20, 1)
        assert any("Limits.memory" in text and "1048576" in text for text in caplog.messages)


# -- limits of one protocol --------------------------------------------------------------------


@looped
async def test_a_protocol_has_a_limit_of_its_own(caplog: pytest.LogCaptureFixture) -> None:  # RM-T11
    async with served(max_streams=2) as (server, client, handler):
        conn = await client.connect(server.addrs_with_peer[0])
        streams = await opened(conn, handler, 2)
        error = await refusal(conn)
        assert error.code == codes.STREAM_RESOURCE_LIMIT_EXCEEDED
        assert "refused: 2 of 2 streams of /hang (set_stream_handler(max_streams=...))" in caplog.messages
        assert use(server, "max_streams of /hang") == (None, None, 1)
        assert await client.echo(conn, b"another protocol") == b"another protocol"
        for stream in streams:
            stream.reset()
        handler.release.set()
        await eventually(lambda: not handler.running)
        handler.release.clear()
        await opened(conn, handler, 2)


@looped
async def test_a_protocol_has_a_limit_for_each_peer(caplog: pytest.LogCaptureFixture) -> None:
    async with served(max_streams_per_peer=1) as (server, client, handler):
        conn = await client.connect(server.addrs_with_peer[0])
        await opened(conn, handler, 1)
        await refusal(conn)
        assert (
            f"refused: 1 of 1 streams of /hang with {client.peer_id} "
            "(set_stream_handler(max_streams_per_peer=...))"
        ) in caplog.messages
        async with Host(PrivateKey.generate(), listen=(), identify=False) as other:
            await opened(await other.connect(server.addrs_with_peer[0]), handler, 1)
            await eventually(lambda: len(handler.running) == 2)


@looped
async def test_nothing_is_kept_of_peers_whose_handlers_have_returned() -> None:
    async with served(max_streams=2, max_streams_per_peer=2) as (server, client, handler):
        conn = await client.connect(server.addrs_with_peer[0])
        await opened(conn, handler, 2)
        capped: Any = server.swarm._streams._handlers[HANG]
        assert (capped._num, len(capped._by_peer)) == (2, 1)
        handler.release.set()
        await eventually(lambda: capped._num == 0)
        assert not capped._by_peer


@pytest.mark.parametrize("cap", ["max_streams", "max_streams_per_peer"])
def test_a_limit_of_nothing_is_a_mistake(cap: str) -> None:
    host: Any = Host(listen=())
    for wrong in (0, -1, True, "1"):
        with pytest.raises((TypeError, ValueError), match=f"{cap} must be a whole number from 1"):
            host.set_stream_handler(HANG, print, **{cap: wrong})


def test_a_handler_without_limits_is_called_directly() -> None:
    host = Host(listen=())
    handler = Hanging()
    host.set_stream_handler(HANG, handler)
    assert host.swarm._streams._handlers[HANG] is handler
