"""A stream as asyncio.Transport, and as StreamReader and StreamWriter: what asyncio's libraries rely on.

Comes in: two ends of a stream over a socket pair. Goes out: calls of asyncio protocols, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from conformance.muxed_pairs import Kind, connected, opened, pattern, read_all
from harness import eventually, looped, settle
from hosts import pair
from p2pcore import errors, limits
from p2pcore.interfaces import Stream
from p2pcore.streams import StreamTransport, open_pair

KIND = Kind("yamux", "plain", "socket")


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    keeps_open = False

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keeps_open

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append(("lost", error))

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Keeping(Recorder):
    keeps_open = True


@asynccontextmanager
async def ends(protocol: asyncio.BaseProtocol) -> AsyncIterator[tuple[StreamTransport, Stream]]:
    """A transport, and the other end of its stream."""
    async with connected(KIND) as (client, server):
        near, far = await opened(client, server)
        yield StreamTransport(near, protocol), far


@looped
async def test_a_protocol_hears_of_the_connection_the_data_the_end_and_the_loss_in_this_order() -> None:
    protocol = Recorder()
    async with ends(protocol) as (transport, far):
        assert protocol.calls == ["made"]
        await far.write(b"hello")
        await far.close_write()
        await transport.wait_closed()
        assert protocol.received == b"hello"
        assert protocol.calls == ["made", "eof", ("lost", None)]
        assert await far.read() == b""
        assert transport.is_closing()


@looped
async def test_a_protocol_that_keeps_its_half_open_answers_after_the_peers_end() -> None:
    protocol = Keeping()
    async with ends(protocol) as (transport, far):
        await far.close_write()
        await eventually(lambda: "eof" in protocol.calls)
        transport.write(b"answer")
        transport.write_eof()
        assert await read_all(far) == b"answer"
        assert protocol.calls == ["made", "eof"]
        transport.close()
        await transport.wait_closed()
        assert protocol.calls[-1] == ("lost", None)


@looped
async def test_a_protocol_that_answers_hears_when_the_peer_gives_up() -> None:
    protocol = Keeping()
    async with ends(protocol) as (transport, far):
        await far.close_write()
        await eventually(lambda: "eof" in protocol.calls)
        far.reset(3)
        await transport.wait_closed()
        assert isinstance(protocol.calls[-1][1], errors.StreamReset)


@looped
async def test_a_reset_reaches_the_protocol_as_a_connection_error() -> None:
    protocol = Recorder()
    async with ends(protocol) as (transport, far):
        far.reset(3)
        await transport.wait_closed()
        assert isinstance(protocol.calls[-1][1], ConnectionError)
        transport.write(b"ignored, as asyncio does")
        transport.close()
        transport.abort()
        await settle()
        assert len(protocol.calls) == 2


@looped
async def test_a_paused_transport_holds_one_chunk_and_the_peer_is_held_back() -> None:
    protocol = Recorder()
    async with ends(protocol) as (transport, far):
        await settle()  # it waits for bytes, which come after the pause
        transport.pause_reading()
        assert not transport.is_reading()
        data = pattern(4 << 20)
        sending = asyncio.ensure_future(far.write(data))
        await settle(50)
        assert not sending.done()
        assert protocol.received == b""
        transport.resume_reading()
        await sending
        await eventually(lambda: len(protocol.received) == len(data))
        assert protocol.received == data


@looped
async def test_a_protocol_is_told_to_pause_and_to_go_on_and_all_arrives_in_order() -> None:
    protocol = Recorder()
    async with ends(protocol) as (transport, far):
        data = pattern(3 << 20)
        for at in range(0, len(data), 100_000):
            transport.write(memoryview(data)[at : at + 100_000])
        assert protocol.calls == ["made", "pause"]
        assert transport.get_write_buffer_size() > limits.STREAM_TRANSPORT_HIGH_BYTES
        assert await far.read_exactly(len(data), len(data)) == data
        await eventually(lambda: protocol.calls == ["made", "pause", "resume"])
        assert transport.get_write_buffer_size() == 0


@looped
async def test_what_a_protocol_writes_when_it_may_go_on_comes_behind_the_rest() -> None:
    class More(Recorder):
        transport: StreamTransport
        num = 3

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.num:
                self.num -= 1
                self.transport.write(pattern(500_000, self.num))
            else:
                self.transport.write_eof()

    protocol = More()
    async with ends(protocol) as (transport, far):
        protocol.transport = transport
        transport.write(pattern(500_000, 3))
        assert await read_all(far) == b"".join(pattern(500_000, i) for i in (3, 2, 1, 0))


@looped
async def test_closing_sends_what_waits_first() -> None:
    protocol = Recorder()
    async with ends(protocol) as (transport, far):
        data = pattern(2 << 20)
        transport.write(data)
        transport.close()
        transport.close()
        await far.write(b"dropped")
        assert await read_all(far) == data
        await transport.wait_closed()
        assert protocol.calls[-1] == ("lost", None)
        assert protocol.received == b""


@looped
async def test_a_protocol_that_ignores_the_pause_loses_the_stream() -> None:
    protocol = Recorder()
    async with ends(protocol) as (transport, far):
        transport.write(bytes(limits.STREAM_TRANSPORT_MAX_BYTES + 1))  # one write may be as long as it likes
        assert not transport.is_closing()
        transport.write(b"x")
        await transport.wait_closed()
        assert isinstance(protocol.calls[-1][1], errors.LimitExceeded)
        assert transport.get_write_buffer_size() == 0
        with pytest.raises(errors.StreamReset):
            await read_all(far)


@looped
async def test_write_limits_follow_asyncio() -> None:
    async with ends(Recorder()) as (transport, _):
        assert transport.get_write_buffer_limits() == (16 << 10, 64 << 10)
        transport.set_write_buffer_limits(high=100)
        assert transport.get_write_buffer_limits() == (25, 100)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        with pytest.raises(ValueError, match="must be at least low"):
            transport.set_write_buffer_limits(1, 2)
        transport.write_eof()
        with pytest.raises(RuntimeError):
            transport.write(b"x")
        with pytest.raises(TypeError):
            transport.write("text")  # type: ignore[arg-type]


@looped
async def test_what_a_protocol_raises_ends_its_stream_alone_and_is_reported() -> None:
    class Broken(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    protocol, reports = Broken(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    async with ends(protocol) as (transport, far):
        await far.write(b"x")
        await transport.wait_closed()
        assert isinstance(protocol.calls[-1][1], ZeroDivisionError)
        assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
        with pytest.raises(errors.StreamReset):
            await far.read()


@looped
async def test_a_buffered_protocol_gets_the_same_bytes() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer, self.received = bytearray(1000), b""

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.buffer[:nbytes]

    protocol = Buffered()
    async with ends(protocol) as (transport, far):
        await far.write(pattern(5500))
        await far.close_write()
        await transport.wait_closed()
        assert protocol.received == pattern(5500)


@looped
async def test_the_extra_information_names_the_peer() -> None:
    async with pair() as p:
        protocol = Recorder()
        found: list[StreamTransport] = []

        async def serve(stream: Stream) -> None:
            found.append(StreamTransport(stream, protocol))
            await found[0].wait_closed()

        p.server.set_stream_handler("/x/1", serve)
        async with p.dialer.stream(p.conn, "/x/1") as stream:
            await stream.write(b"x")
            await eventually(lambda: protocol.received)
        await eventually(lambda: not p.server.swarm.num_handlers_running)
        extra = found[0].get_extra_info
        assert extra("peer_id") == p.dialer.peer_id
        assert extra("protocol") == "/x/1"
        assert extra("conn") is p.server_conn
        assert extra("peername") == ("127.0.0.1", int(str(p.server_conn.remote_multiaddr).split("/")[4]))
        assert extra("sockname")[0] == "127.0.0.1"
        assert extra("stream") is not None
        assert extra("socket") is None
        assert repr(found[0]).startswith("<StreamTransport closed of <Stream ")


# -- StreamReader and StreamWriter ------------------------------------------------------------------


@looped
async def test_a_pair_reads_lines_and_writes_as_over_a_socket() -> None:
    async with connected(KIND) as (client, server):
        near, far = await opened(client, server)
        reader, writer = open_pair(near)
        other_reader, other_writer = open_pair(far)
        writer.write(b"one\ntwo\n")
        await writer.drain()
        assert [await other_reader.readline() for _ in range(2)] == [b"one\n", b"two\n"]
        data = pattern(3 << 20)
        other_writer.write(data)
        draining = asyncio.ensure_future(other_writer.drain())
        assert await reader.readexactly(len(data)) == data
        await draining
        writer.write_eof()
        assert await other_reader.read() == b""
        other_writer.close()
        await other_writer.wait_closed()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert near.is_closed
        assert far.is_closed


@looped
async def test_a_reader_that_is_not_read_holds_back_the_peer() -> None:
    async with connected(KIND) as (client, server):
        near, far = await opened(client, server)
        reader, writer = open_pair(near, limit=1000)
        sending = asyncio.ensure_future(far.write(bytes(2 << 20)))
        await settle(50)
        assert not sending.done()
        assert len(await reader.readexactly(2 << 20)) == 2 << 20
        await sending
        writer.close()


@looped
async def test_a_reset_is_raised_by_the_reader() -> None:
    async with connected(KIND) as (client, server):
        near, far = await opened(client, server)
        reader, writer = open_pair(near)
        far.reset(1)
        with pytest.raises(errors.StreamReset):
            await reader.read()
        writer.close()
