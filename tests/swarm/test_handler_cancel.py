"""When a handler is cancelled because its stream has failed, and when it goes on (docs/streams.md).

Comes in: two hosts. Goes out: what the handler saw. A handler "computes" where it waits for something that
has nothing to do with its stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from _fast.chains import wire_pair
from conformance.muxed_pairs import Kind, opened
from harness import eventually, looped, seconds, settle
from hosts import Pair, pair
from p2pcore import codes
from p2pcore.errors import ConnectionClosed, StreamReset
from p2pcore.interfaces import Stream

PROTOCOL = "/x/1"
MUXERS = pytest.mark.parametrize("muxer", ["yamux", "mplex"])


ENDS: tuple[Callable[[Stream], None], ...] = (
    lambda stream: stream.reset(),
    lambda stream: stream.conn.abort(),
)


class Handler:
    """Reads `n` bytes, then computes until `release` is set or it is cancelled."""

    def __init__(self, n: int = 1, reads_rest: bool = False) -> None:
        self.n = n
        self.reads_rest = reads_rest
        self.rest = b""
        self.release = asyncio.Event()
        self.computes = asyncio.Event()
        self.stream: Stream | None = None
        self.num_cancelled = 0
        self.why = ""
        self.has_returned = False

    async def __call__(self, stream: Stream) -> None:
        self.stream = stream
        try:
            await stream.read_exactly(self.n)
            await self.compute()
            self.rest = await stream.read() if self.reads_rest else b""
            self.has_returned = True
        except asyncio.CancelledError as error:
            self.why = str(error)
            raise

    async def compute(self) -> None:
        self.computes.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise


async def served(p: Pair, handler: Callable[[Stream], Awaitable[None]], data: bytes = b"x") -> Stream:
    """A stream whose handler computes."""
    p.server.set_stream_handler(PROTOCOL, handler)
    stream = await p.conn.new_stream(PROTOCOL)
    await stream.write(data)
    return stream


async def computing(p: Pair, handler: Handler, *, ended: bool = False) -> Stream:
    stream = await served(p, handler)
    if ended:
        await stream.close_write()
    await handler.computes.wait()
    if ended:
        await eventually(lambda: "ended by the peer" in repr(handler.stream))
    return stream


async def goes_on(p: Pair, handler: Handler) -> None:
    """The handler is not cancelled, and returns when it is done."""
    await eventually(lambda: handler.stream is not None and handler.stream.close_reason is not None)
    await settle()
    handler.release.set()
    await eventually(lambda: not p.server.swarm.num_handlers_running)
    assert handler.has_returned
    assert handler.num_cancelled == 0


def options(muxer: str) -> dict[str, tuple[str, ...]]:
    return {"muxers": (muxer,)}


# -- cancelled --------------------------------------------------------------------------------------


@MUXERS
@pytest.mark.parametrize("ended", [False, True], ids=["open", "after FIN"])
@looped
async def test_a_handler_that_computes_is_cancelled_when_the_peer_resets_its_stream(
    muxer: str, ended: bool
) -> None:
    async with pair(options(muxer), options(muxer)) as p:
        handler = Handler()
        stream = await computing(p, handler, ended=ended)
        stream.reset(5)
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        assert handler.num_cancelled == 1
        assert "stream reset by the peer" in handler.why


@MUXERS
@looped
async def test_a_handler_that_computes_is_cancelled_when_its_connection_is_lost(muxer: str) -> None:
    async with pair(options(muxer), options(muxer)) as p:
        handler = Handler()
        await computing(p, handler)
        p.conn.abort()
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        assert handler.num_cancelled == 1


@looped
async def test_a_handler_is_cancelled_after_the_peers_end_if_the_connection_breaks() -> None:
    ends = await wire_pair()
    client, server = Kind("yamux", "plain", "socket").start(ends, seconds(5))
    near, far = await opened(client, server)
    task = asyncio.ensure_future(asyncio.Event().wait())
    far.handler_task = task  # type: ignore[assignment]
    await near.close_write()
    assert await far.read() == b""
    ends[0].abort()  # no go-away
    await asyncio.wait([task])
    assert task.cancelled()
    server.abort()


@looped
async def test_a_handler_is_cancelled_when_other_code_here_resets_its_stream() -> None:
    async with pair() as p:
        handler = Handler()
        await computing(p, handler)
        p.server_conn.session.reset_streams(codes.STREAM_SHUTDOWN)
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        assert handler.num_cancelled == 1


@looped
async def test_a_handler_is_cancelled_once_when_a_drain_is_over() -> None:
    async with pair() as p:
        handler = Handler()
        await computing(p, handler)
        assert await p.server.drain(0.01) == 1
        assert handler.num_cancelled == 1


@looped
async def test_a_handler_that_ignores_its_cancellation_is_not_cancelled_again() -> None:
    async with pair() as p:
        hits, saved, saving = [], asyncio.Event(), asyncio.Event()

        async def handler(stream: Stream) -> None:
            for _ in range(2):
                try:
                    await saving.wait()
                except asyncio.CancelledError as error:
                    hits.append(error)
            saved.set()

        stream = await served(p, handler)
        await eventually(lambda: p.server.swarm.num_handlers_running)
        await settle()
        stream.reset()
        await eventually(lambda: hits)
        p.conn.abort()
        await eventually(lambda: not p.server.swarm.num_conns)
        closing = asyncio.ensure_future(p.server.close())
        await settle(20)
        saving.set()
        await closing
        assert saved.is_set()
        assert len(hits) == 1


# -- not cancelled ----------------------------------------------------------------------------------


@MUXERS
@looped
async def test_the_peers_end_is_no_reason(muxer: str) -> None:
    async with pair(options(muxer), options(muxer)) as p:
        handler = Handler()
        stream = await computing(p, handler, ended=True)
        await settle(20)
        handler.release.set()
        assert await stream.read() == b""
        assert handler.has_returned


@looped
async def test_all_that_came_is_served_though_the_peer_has_left_in_order() -> None:
    async with pair() as p:
        handler = Handler()
        await computing(p, handler, ended=True)
        await p.conn.close()
        await goes_on(p, handler)


@MUXERS
@looped
async def test_a_handler_with_bytes_to_read_goes_on(muxer: str) -> None:
    async with pair(options(muxer), options(muxer)) as p:
        handler = Handler(reads_rest=True)
        await served(p, handler, b"xyz")
        await handler.computes.wait()
        p.conn.abort()
        await goes_on(p, handler)
        assert handler.rest == b"yz"


@looped
async def test_an_option_says_that_a_handler_goes_on() -> None:
    async with pair() as p:
        for end in ENDS:
            handler = Handler()
            p.server.set_stream_handler(PROTOCOL, handler, cancel=False)
            stream = await p.conn.new_stream(PROTOCOL)
            await stream.write(b"x")
            await handler.computes.wait()
            end(stream)
            await goes_on(p, handler)


@looped
async def test_the_option_of_a_protocol_ends_with_its_handler() -> None:
    async with pair() as p:
        handler = Handler()
        p.server.set_stream_handler(PROTOCOL, handler, cancel=False)
        stream = await computing(p, handler)  # sets it anew, without the option
        stream.reset()
        await eventually(lambda: handler.num_cancelled)


@MUXERS
@looped
async def test_a_handler_that_waits_for_its_stream_gets_the_error_and_no_cancellation(muxer: str) -> None:
    async with pair(options(muxer), options(muxer)) as p:
        errors: list[BaseException] = []
        calls: list[Callable[[Stream], Awaitable[object]]] = []
        waiting = asyncio.Event()

        async def read(stream: Stream) -> object:
            return await stream.read()

        async def write(stream: Stream) -> object:
            return await stream.write(bytes(64 << 20))

        async def wait(stream: Stream) -> object:
            await stream.wait_closed()
            raise stream.close_reason or AssertionError

        async def handler(stream: Stream) -> None:
            await stream.read_exactly(1)
            waiting.set()
            try:
                async with asyncio.timeout(1000):
                    await calls[-1](stream)
            except BaseException as error:
                errors.append(error)
                await asyncio.sleep(0)  # cleaning up is not cancelled either
                errors.append(error)

        for call in (read, write, wait):
            calls.append(call)
            for end in ENDS:
                waiting.clear()
                if p.conn.is_closed:
                    p.conn = await p.dialer.connect(p.server.addrs_with_peer[0])
                stream = await served(p, handler)
                await waiting.wait()
                await settle(20)
                end(stream)
                await eventually(lambda: not p.server.swarm.num_handlers_running)
                assert len(errors) == 2
                assert isinstance(errors[0], StreamReset | ConnectionClosed)
                errors.clear()


@looped
async def test_a_handler_that_resets_its_own_stream_goes_on() -> None:
    async with pair() as p:
        steps = []

        async def handler(stream: Stream) -> None:
            stream.reset()
            steps.append("reset")
            await asyncio.sleep(0)
            steps.append("cleaned up")

        await served(p, handler)
        await eventually(lambda: not p.server.swarm.num_handlers_running and steps)
        assert steps == ["reset", "cleaned up"]


@MUXERS
@looped
async def test_a_handler_that_has_ended_its_half_finishes_what_it_does(muxer: str) -> None:
    async with pair(options(muxer), options(muxer)) as p:

        class Closing(Handler):
            async def compute(self) -> None:
                assert self.stream is not None
                await self.stream.close_write()
                await super().compute()

        handler = Closing()
        stream = await computing(p, handler)
        stream.reset()
        await goes_on(p, handler)


@looped
async def test_a_stream_that_its_handler_gives_away_cancels_nobody() -> None:
    async with pair() as p:
        kept: list[Stream] = []
        tasks: list[asyncio.Task[None] | None] = []

        async def handler(stream: Stream) -> Stream:
            tasks.append(stream.handler_task)
            kept.append(stream)
            return stream

        p.server.set_stream_handler(PROTOCOL, handler)
        stream = await p.conn.new_stream(PROTOCOL)
        await stream.write(b"x")
        await eventually(lambda: kept and not p.server.swarm.num_handlers_running)
        assert tasks[0] is not None
        assert kept[0].handler_task is None


@looped
async def test_a_stream_of_a_block_is_closed_at_its_end_and_reset_by_an_error() -> None:
    async with pair() as p:
        ends: list[object] = []

        async def handler(stream: Stream) -> None:
            try:
                ends.append([chunk async for chunk in stream])
            except StreamReset as error:
                ends.append(error)

        p.server.set_stream_handler(PROTOCOL, handler)
        async with p.dialer.stream(p.server.peer_id, PROTOCOL) as stream:
            await stream.write(b"x")
        await eventually(lambda: len(ends) == 1)
        with pytest.raises(ZeroDivisionError):
            await _fails(p)
        await eventually(lambda: len(ends) == 2)
        assert ends[0] == [b"x"]
        assert isinstance(ends[1], StreamReset)


async def _fails(p: Pair) -> None:
    async with p.dialer.stream(p.conn, PROTOCOL) as stream:
        await stream.write(b"x")
        await settle(20)
        raise ZeroDivisionError
