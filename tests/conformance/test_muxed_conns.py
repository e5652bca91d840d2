"""What every muxer promises of connections: opening, delivery, back-pressure, their end.

Comes in: interfaces.MuxedConn and Stream alone, over every channel, over sockets and a pipe that cuts at
every byte. Goes out: the same promises for yamux and mplex. What only one of them has is tested beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from conformance.muxed_pairs import KINDS, Kind, connected, give_back, opened, pattern, read_all
from harness import eventually, looped, seconds, settle
from p2pcore import errors
from p2pcore.interfaces import Direction, MuxedConn, Stream

pytestmark = [pytest.mark.parametrize("kind", KINDS, ids=str)]


@asynccontextmanager
async def echoing(server: MuxedConn) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Serves every stream by giving back what comes."""
    tasks: list[asyncio.Task[None]] = []
    server.set_stream_handler(lambda stream: tasks.append(asyncio.create_task(give_back(stream))))
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- opening and delivery ---------------------------------------------------------------------------


@looped
async def test_either_side_opens_streams_and_the_other_accepts_them(kind: Kind) -> None:
    async with connected(kind) as ends:
        for one, other in (ends, ends[::-1]):
            near, far = await opened(one, other)
            assert (near.direction, far.direction) == (Direction.OUTBOUND, Direction.INBOUND)
            await near.write(b"there")
            assert await far.read_exactly(5) == b"there"
            await far.write(b"back")
            assert await near.read_exactly(4) == b"back"
        assert [end.num_streams for end in ends] == [2, 2]


@looped
async def test_both_sides_open_at_once_and_nothing_is_mixed_up(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        count = kind.scaled(50, 10)

        async def half(one: MuxedConn, name: bytes) -> list[Stream]:
            mine = [await one.open_stream() for _ in range(count)]
            for i, stream in enumerate(mine):
                await stream.write(name + bytes([i]))
            return mine

        await asyncio.gather(half(client, b"c"), half(server, b"s"))
        for end, name in ((server, b"c"), (client, b"s")):
            got = [await (await end.accept_stream()).read_exactly(2) for _ in range(count)]
            assert sorted(got) == [name + bytes([i]) for i in range(count)]


@looped
async def test_streams_go_to_the_handler_those_that_waited_first(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        seen: list[Stream] = []
        for i in range(3):
            await (await client.open_stream()).write(bytes([i]))
        await eventually(lambda: server.num_streams == 3)
        server.set_stream_handler(seen.append)
        await (await client.open_stream()).write(b"\x03")
        await eventually(lambda: len(seen) == 4)
        assert [await stream.read_exactly(1) for stream in seen] == [bytes([i]) for i in range(4)]


@looped
async def test_a_cancelled_accept_loses_no_stream(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        first, second = (asyncio.ensure_future(server.accept_stream()) for _ in range(2))
        await settle()
        first.cancel()
        await (await client.open_stream()).write(b"x")
        assert await (await second).read_exactly(1) == b"x"


@looped
async def test_thousands_of_streams_and_none_is_left(kind: Kind) -> None:
    async with connected(kind) as (client, server), echoing(server):
        count, at_once = kind.scaled(2000, 40), kind.scaled(100, 10)
        numbers = iter(range(count))

        async def worker() -> None:
            for i in numbers:
                stream = await client.open_stream()
                await stream.write(pattern(32, i))
                await stream.close_write()
                assert await read_all(stream) == pattern(32, i)
                await stream.close()

        await asyncio.gather(*(worker() for _ in range(at_once)))
        await eventually(lambda: client.num_streams == server.num_streams == 0)


@looped
async def test_hundreds_of_streams_at_the_same_time(kind: Kind) -> None:
    async with connected(kind) as (client, server), echoing(server):
        streams = [await client.open_stream() for _ in range(kind.scaled(200, 20))]
        for i, stream in enumerate(streams):
            await stream.write(pattern(16, i))
        await eventually(lambda: server.num_streams == len(streams))
        for i, stream in reversed(list(enumerate(streams))):
            assert await stream.read_exactly(16) == pattern(16, i)


# -- back-pressure ----------------------------------------------------------------------------------


@looped
async def test_a_stream_nobody_reads_does_not_stop_the_others_for_good(kind: Kind) -> None:
    if kind.is_cut:
        pytest.skip("needs more bytes than a socket takes")
    async with connected(kind, stall_s=0.5) as (client, server):
        stuck, unread = await opened(client, server)
        writing = asyncio.ensure_future(stuck.write(bytes(32 << 20)))
        await eventually(lambda: unread.num_buffered >= 200_000)  # type: ignore[attr-defined]
        assert unread.num_buffered <= kind.traits.most_unread(1)  # type: ignore[attr-defined]
        near, far = await opened(client, server)
        serving = asyncio.ensure_future(give_back(far))
        for i in range(20):
            await near.write(pattern(10_000, i))
            assert await near.read_exactly(10_000) == pattern(10_000, i)
        assert unread.is_closed is not kind.traits.has_flow_control
        if kind.traits.has_flow_control:
            assert not writing.done()
            stuck.reset()
        with pytest.raises(errors.StreamReset):
            await writing
        await near.close()
        await serving


@looped
async def test_memory_for_a_peer_that_writes_and_writes_is_bounded(kind: Kind) -> None:
    if kind.is_cut:
        pytest.skip("needs more bytes than a socket takes")
    async with connected(kind) as (client, server):
        pairs = [await opened(client, server) for _ in range(30)]
        writes = [asyncio.ensure_future(near.write(bytes(1 << 20))) for near, _ in pairs]
        most = turns = 0
        while turns < 100:  # in which nothing more comes
            await asyncio.sleep(0)
            held = sum(far.num_buffered for _, far in pairs)  # type: ignore[attr-defined]
            most, turns = max(most, held), turns + 1 if held <= most else 0
        assert 200_000 < most <= kind.traits.most_unread(len(pairs))
        assert not all(write.done() for write in writes)
        client.abort()
        assert all(
            isinstance(e, errors.P2PError) for e in await asyncio.gather(*writes, return_exceptions=True)
        )


@looped
async def test_a_slow_reader_gets_everything(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        data = pattern(kind.scaled(2 << 20, 3000))
        writing = asyncio.ensure_future(near.write(data))
        got = bytearray()
        while len(got) < len(data):
            got += await far.read(40_000)
            await asyncio.sleep(0)
        assert got == data
        await writing


# -- ends of a connection ---------------------------------------------------------------------------


@looped
async def test_close_loses_nothing_that_was_written(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        pairs = [await opened(client, server) for _ in range(3)]
        data = pattern(kind.scaled(20_000, 300))
        for near, _ in pairs:
            await near.write(data)
        await pairs[0][0].close_write()
        closing = asyncio.ensure_future(client.close())
        await eventually(lambda: server.is_closed)
        assert await read_all(pairs[0][1]) == data
        for _, far in pairs[1:]:
            assert await far.read_exactly(len(data)) == data
            with pytest.raises(errors.ConnectionClosed):
                await far.read()
        await closing


@looped
async def test_close_ends_whatever_waits_on_both_sides(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        waits = [asyncio.ensure_future(a) for a in (near.read(), far.read(), server.accept_stream())]
        await settle()
        await client.close()
        await client.close()
        for wait in waits:
            with pytest.raises(errors.ConnectionClosed):
                await wait
        for end in (client, server):
            await eventually(lambda end=end: end.is_closed)
            assert end.num_streams == 0
            for use in (end.open_stream, end.accept_stream):
                with pytest.raises(errors.ConnectionClosed):
                    await use()
        with pytest.raises(errors.ConnectionClosed):
            await near.write(b"x")


@looped
async def test_close_returns_although_the_peer_goes_on_writing(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        writing = asyncio.ensure_future(far.write(bytes(kind.scaled(8 << 20, 3000))))
        await settle()
        async with asyncio.timeout(seconds(10)):
            await client.close()
        assert near.is_closed
        await asyncio.gather(writing, return_exceptions=True)


@looped
async def test_abort_ends_both_sides_at_once(kind: Kind) -> None:
    async with connected(kind) as (client, server):
        near, far = await opened(client, server)
        reads = [asyncio.ensure_future(s.read()) for s in (near, far)]
        await settle()
        client.abort()
        client.abort()
        assert client.is_closed
        for read in reads:
            with pytest.raises(errors.ConnectionClosed):
                await read
        await eventually(lambda: server.is_closed)
        await client.close()


@pytest.mark.parametrize("how", ["close", "abort", "peer closes", "peer aborts"])
@looped
async def test_close_callbacks_run_once_from_the_loop(kind: Kind, how: str) -> None:
    async with connected(kind) as (client, server):
        calls: list[BaseException | None] = []
        client.add_close_callback(calls.append)
        client.add_close_callback(calls.append)
        who = server if how.startswith("peer") else client
        if "abort" in how:
            who.abort()
        else:
            closing = asyncio.ensure_future(who.close())
        assert not calls
        await eventually(lambda: len(calls) == 2)
        assert all(isinstance(error, errors.ConnectionClosed) for error in calls)
        client.add_close_callback(calls.append)
        assert len(calls) == 2
        await settle()
        client.abort()
        await client.close()
        await settle()
        assert len(calls) == 3
        if "abort" not in how:
            await closing
