"""Streams to peers of other processes: as good as streams of our own, and gone when anything on the way is.

One suite for all that carries them: sockets between workers, and each bus.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from buses import KITS
from machines import Mate, machine, machines

from harness import HANG_S, eventually, looped, seconds
from hosts import BARE
from p2pcore import Host, ProtocolNotSupported, Stream, StreamReset, limits
from p2pcore.codes import Undelivered
from p2pcore.errors import ConnectionClosed, NotDelivered
from p2pcore.fleet.pipes import Pipes
from p2pcore.workers.hub import Hub
from p2pcore.workers.links import Links

ECHO = "/echo/1.0.0"
LONG_S = seconds(HANG_S / 4)
Way = Callable[[int], AbstractAsyncContextManager[list[Mate]]]


@pytest.fixture(params=["sockets", "memory", "workers", "nats"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Makes so many processes, and what connects them."""
    if request.param == "sockets":
        return machine
    monkeypatch.setattr(limits, "FLEET_PIPE_LOOK_S", 0.1)
    kit = KITS[request.param](request)
    return lambda count: machines(count, kit)


@dataclass
class Scene:
    """`asker` opens streams to `peer`, which is connected to `holder`."""

    asker: Mate
    holder: Mate
    peer: Host
    mates: list[Mate]
    seen: list[object] = field(default_factory=list)

    async def open(self, protocol: str = ECHO, timeout_s: float = LONG_S) -> Stream:
        return await self.asker.opener.open(
            self.holder.name, self.peer.peer_id, protocol, timeout_s=timeout_s
        )


@asynccontextmanager
async def scene(
    way: Way, handler: Callable[[Stream], Awaitable[Stream | None]] | None = None, count: int = 2
) -> AsyncIterator[Scene]:
    async with way(count) as mates, Host(**BARE | {"listen": [], "echo": True}) as peer:
        if handler is not None:
            peer.set_stream_handler("/test", handler)
        await peer.connect(mates[1].host.addrs_with_peer[0])
        await eventually(lambda: mates[1].host.swarm.conns_to_peer(peer.peer_id))
        yield Scene(mates[0], mates[1], peer, mates)


@looped
async def test_bytes_go_both_ways_and_the_end_of_one_half_leaves_the_other(way: Way) -> None:
    ends: list[bytes] = []

    async def serve(stream: Stream) -> None:
        data = b"".join([chunk async for chunk in stream])
        ends.append(data)
        await stream.write(data[::-1])

    data = os.urandom(3_000_000)
    async with scene(way, serve) as s:
        stream = await s.open("/test")
        assert stream.protocol == "/test"
        await stream.write(data)
        await stream.close_write()
        assert b"".join([chunk async for chunk in stream]) == data[::-1]
        assert ends == [data]
        await eventually(lambda: s.asker.num_link_streams == s.holder.num_link_streams == 0)
        assert not s.peer.swarm.conns()[0].num_streams


@looped
async def test_messages_and_every_call_of_a_stream_work(way: Way) -> None:
    async def serve(stream: Stream) -> None:
        async for message in stream.msgs():
            await stream.write_msg(message.upper())

    async with scene(way, serve) as s, await s.open("/test") as stream:
        await stream.write_msg(b"hello")
        assert await stream.read_msg() == b"HELLO"
        stream.set_read_deadline(0.01)
        with pytest.raises(TimeoutError):
            await stream.read()
        stream.set_read_deadline(None)
        assert stream.try_write(b"\x02hi")
        assert await stream.read_exactly(3) == b"\x02HI"


@looped
async def test_a_reset_reaches_the_other_end_with_its_code_both_ways(way: Way) -> None:
    codes: list[int] = []

    async def hear(stream: Stream) -> None:
        await stream.write(b"x")
        try:
            await stream.read()
        except StreamReset as error:
            codes.append(error.code)

    async with scene(way, hear) as s:
        stream = await s.open("/test")
        assert await stream.read() == b"x"
        stream.reset(77)
        await eventually(lambda: codes == [77])

    async def give_up(stream: Stream) -> None:
        await stream.read()
        stream.reset(88)

    async with scene(way, give_up) as s:
        stream = await s.open("/test")
        await stream.write(b"x")
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert (caught.value.code, caught.value.remote) == (88, True)


@looped
async def test_a_peer_that_does_not_read_holds_back_the_sender_and_nothing_is_lost(way: Way) -> None:
    may_read = asyncio.Event()
    got: list[int] = []

    async def serve(stream: Stream) -> None:
        await may_read.wait()
        got.append(sum([len(chunk) async for chunk in stream]))

    async with scene(way, serve) as s:
        stream = await s.open("/test")
        sent = 0
        while stream.try_write(bytes(65536)):
            sent += 65536
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            assert sent < 64 * 2**20, "somebody holds without a bound"
        assert sent <= 4 * limits.LINK_WINDOW_BYTES
        may_read.set()
        await stream.close_write()
        await eventually(lambda: got == [sent])


@looped
async def test_a_reader_that_does_not_read_holds_back_the_peer(way: Way) -> None:
    sent = 0

    async def serve(stream: Stream) -> None:
        nonlocal sent
        while True:
            await stream.write(bytes(65536))
            sent += 65536

    async with scene(way, serve) as s:
        stream = await s.open("/test")
        await stream.read_exactly(1)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent <= 8 * limits.LINK_WINDOW_BYTES
        await stream.read_exactly(200_000)


@looped
async def test_a_protocol_that_the_peer_does_not_speak_is_told_at_the_first_read(way: Way) -> None:
    async with scene(way) as s:
        stream = await s.open("/unknown")
        with pytest.raises(ProtocolNotSupported):
            await stream.read()


@looped
async def test_what_cannot_be_opened_is_told_with_the_reason(way: Way) -> None:
    async with scene(way, count=3) as s:
        with pytest.raises(NotDelivered) as caught:
            await s.asker.opener.open(s.mates[2].name, s.peer.peer_id, ECHO, timeout_s=LONG_S)
        assert caught.value.reason is Undelivered.NOT_CONNECTED
        with pytest.raises(NotDelivered) as caught:
            await s.asker.opener.open("other", s.peer.peer_id, ECHO, timeout_s=LONG_S)
        is_bus = isinstance(s.asker.opener, Pipes)
        assert caught.value.reason is (Undelivered.GONE if is_bus else Undelivered.ELSEWHERE)
        await s.open()
        await s.holder.stop_serving()
        with pytest.raises(NotDelivered) as caught:
            await s.open()
        assert caught.value.reason is Undelivered.GONE
        await s.holder.kill()
        for _ in range(2):
            with pytest.raises(NotDelivered) as caught:
                await s.open()
            assert caught.value.reason is Undelivered.GONE
            assert not caught.value.may_have_arrived
        await s.asker.lose()
        with pytest.raises(NotDelivered) as caught:
            await s.open()
        assert caught.value.reason is Undelivered.BUS_DOWN


@looped
async def test_two_machines_do_not_reach_each_other() -> None:
    async with scene(machine) as s, machine(1, Hub()) as (other,):
        with pytest.raises(NotDelivered, match="is not of this machine"):
            await other.opener.open(s.holder.name, s.peer.peer_id, ECHO, timeout_s=LONG_S)


@looped
async def test_the_death_of_a_worker_on_the_way_ends_the_stream_at_both_ends(way: Way) -> None:
    ended: list[type[Exception]] = []

    async def serve(stream: Stream) -> None:
        try:
            async for chunk in stream:
                await stream.write(chunk)
        except (StreamReset, ConnectionClosed) as error:
            ended.append(type(error))

    async with scene(way, serve) as s:
        stream = await s.open("/test")
        await stream.write(b"x")
        await stream.read()
        await s.holder.kill()
        with pytest.raises((StreamReset, ConnectionClosed)):
            await stream.read()
        await eventually(lambda: ended)
    ended.clear()
    async with scene(way, serve) as s:
        stream = await s.open("/test")
        await stream.write(b"x")
        await stream.read()
        await s.asker.kill()
        await eventually(lambda: ended)
        assert not s.holder.num_link_streams


@looped
async def test_the_end_of_the_peers_connection_ends_the_stream(way: Way) -> None:
    async with scene(way) as s:
        stream = await s.open()
        await stream.write(b"x")
        await stream.read()
        s.peer.swarm.conns()[0].abort()
        with pytest.raises(StreamReset):
            await stream.read()
        assert not s.holder.num_link_streams


@looped
async def test_a_hundred_at_once_share_one_link_and_leave_nothing(way: Way) -> None:
    async with scene(way) as s:

        async def one(number: int) -> bool:
            async with await s.open() as stream:
                text = b"%d" % number * 100
                await stream.write(text)
                return await stream.read_exactly(len(text)) == text

        for _ in range(3):
            assert all(await asyncio.gather(*map(one, range(100))))
        assert len(s.asker.links._all) == len(s.holder.links._all) == 1
        await eventually(lambda: s.asker.num_link_streams == s.holder.num_link_streams == 0)
        assert not s.asker.links._tasks
        assert not s.holder.links._tasks
        await eventually(lambda: not s.holder.host.swarm.conns()[0].num_streams)


@looped
async def test_opens_that_begin_at_any_moment_of_the_first_one_succeed(way: Way) -> None:
    async with scene(way) as s:
        opening = []
        for _ in range(60):
            opening.append(asyncio.ensure_future(s.open()))
            await asyncio.sleep(0.0001)
        for stream in await asyncio.gather(*opening):
            stream.reset()


@looped
async def test_cancelling_an_open_at_any_turn_leaves_nothing(way: Way) -> None:
    async with scene(way) as s:
        for turns in range(40):
            task = asyncio.ensure_future(s.open())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                (await task).reset()
        stream = await s.open()
        await stream.write(b"still")
        assert await stream.read_exactly(5) == b"still"
        stream.reset()
        await eventually(lambda: s.asker.num_link_streams == s.holder.num_link_streams == 0)
        await eventually(lambda: not s.holder.host.swarm.conns()[0].num_streams)
        await eventually(lambda: not s.asker.links._tasks and not s.holder.links._tasks)


@looped
async def test_an_open_that_takes_too_long_ends_at_its_deadline(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker hangs."""

    async def hang(self: Links, stream: Stream) -> None:
        await asyncio.sleep(HANG_S)

    async with scene(way) as s:
        monkeypatch.setattr(Links, "_opened", hang)
        with pytest.raises(NotDelivered) as caught:
            await s.open(timeout_s=0.05)
        assert caught.value.reason is Undelivered.TIMEOUT
        assert not caught.value.may_have_arrived
        await eventually(lambda: not s.holder.links._tasks)  # its task was cancelled
